#include "collimate/kernels/optimizer.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/optimizer.hpp"

namespace collimate::kernels {

void adamw(Tensor value, Tensor gradient, Tensor first_moment, Tensor second_moment, const AdamW& how, Stream&) {
  check("adamw", "value", value, value.shape());
  check("adamw", "gradient", gradient, value.shape());
  check("adamw", "first_moment", first_moment, value.shape());
  check("adamw", "second_moment", second_moment, value.shape());
  require(how.step >= 1, "adamw counts its steps from 1, and was given step {}", how.step);
  require(how.beta1 >= 0 && how.beta1 < 1 && how.beta2 >= 0 && how.beta2 < 1,
          "adamw needs both betas to be at least 0 and below 1, and was given {} and {}", how.beta1, how.beta2);
  cpu::adamw(value.as<float>(), gradient.as<float>(), first_moment.as<float>(), second_moment.as<float>(), how, value.count());
}

namespace {

std::int64_t whole_blocks(std::string_view name, const Tensor& x) {
  check(name, "x", x, x.shape());
  require(x.count() % chunk_block == 0, "{} needs whole blocks of {} elements, and was given {} elements", name, chunk_block, x.count());
  return x.count() / chunk_block;
}

}  // namespace

void block_squares(Tensor sums, Tensor x, Stream&) {
  const auto blocks = whole_blocks("block_squares", x);
  check("block_squares", "sums", sums, {blocks}, DType::f64);
  cpu::block_squares(sums.as<double>(), x.as<float>(), blocks);
}

void element_hash(Tensor hash, Tensor x, std::int64_t first, Stream&) {
  check("element_hash", "x", x, x.shape());
  check("element_hash", "hash", hash, {1}, DType::u64);
  *hash.as<std::uint64_t>() = cpu::element_hash(x.as<float>(), first, x.count());
}

}  // namespace collimate::kernels
