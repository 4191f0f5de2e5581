#include "collimate/kernels/optimizer.hpp"

#include "kernels/check.hpp"
#include "kernels/table.hpp"

namespace collimate::kernels {

void adamw(Tensor value, Tensor gradient, Tensor first_moment, Tensor second_moment, const AdamW& how, Stream& stream) {
  check("adamw", "value", value, value.shape());
  check("adamw", "gradient", gradient, value.shape());
  check("adamw", "first_moment", first_moment, value.shape());
  check("adamw", "second_moment", second_moment, value.shape());
  require(how.step >= 1, "adamw counts its steps from 1, and was given step {}", how.step);
  require(how.beta1 >= 0 && how.beta1 < 1 && how.beta2 >= 0 && how.beta2 < 1,
          "adamw needs both betas to be at least 0 and below 1, and was given {} and {}", how.beta1, how.beta2);
  table_of(value).adamw(value, gradient, first_moment, second_moment, how, stream);
}

namespace {

std::int64_t whole_blocks(std::string_view name, const Tensor& x) {
  check(name, "x", x, x.shape());
  require(x.count() % chunk_block == 0, "{} needs whole blocks of {} elements, and was given {} elements", name, chunk_block, x.count());
  return x.count() / chunk_block;
}

}  // namespace

void block_squares(Tensor sums, Tensor x, Stream& stream) {
  const auto blocks = whole_blocks("block_squares", x);
  check("block_squares", "sums", sums, {blocks}, DType::f64);
  table_of(sums).block_squares(sums, x, stream);
}

void element_hash(Tensor hash, Tensor x, std::int64_t first, Stream& stream) {
  check("element_hash", "x", x, x.shape(), f32_or_bf16);
  check("element_hash", "hash", hash, {1}, DType::u64);
  table_of(hash).element_hash(hash, x, first, stream);
}

}  // namespace collimate::kernels
