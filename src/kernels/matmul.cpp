#include "collimate/kernels/matmul.hpp"

#include "collimate/kernels/rows.hpp"
#include "kernels/check.hpp"
#include "kernels/cpu/matmul.hpp"

namespace collimate::kernels {
namespace {

void check_rows(std::string_view operation, std::int64_t rows) {
  require(rows == padded_rows(rows), "{} needs {} rows instead of {}, so that the last block of {} has at least {}", operation,
          padded_rows(rows), rows, row_block, least_rows);
}

const float* optional(const Tensor& tensor) { return tensor ? tensor.as<float>() : nullptr; }

}  // namespace

void linear_forward(Tensor y, Tensor x, Tensor w, Tensor bias, Write write, Stream&) {
  constexpr auto name = "linear_forward";
  check_rank(name, "x", x, 2);
  check_rank(name, "w", w, 2);
  const auto rows = x[0], n = w[0], k = x[1];
  check(name, "w", w, {n, k});
  check(name, "y", y, {rows, n});
  if (bias) check(name, "bias", bias, {n});
  check_rows(name, rows);
  cpu::linear_forward(y.as<float>(), x.as<float>(), w.as<float>(), optional(bias), write == Write::add, rows, n, k);
}

void linear_backward_input(Tensor dx, Tensor dy, Tensor w, Write write, Stream&) {
  constexpr auto name = "linear_backward_input";
  check_rank(name, "dy", dy, 2);
  check_rank(name, "w", w, 2);
  const auto rows = dy[0], n = dy[1], k = w[1];
  check(name, "w", w, {n, k});
  check(name, "dx", dx, {rows, k});
  check_rows(name, rows);
  cpu::linear_backward_input(dx.as<float>(), dy.as<float>(), w.as<float>(), write == Write::add, rows, n, k);
}

void linear_backward_weight(Tensor dw, Tensor dy, Tensor x, Write write, Stream&) {
  constexpr auto name = "linear_backward_weight";
  check_rank(name, "dy", dy, 2);
  check_rank(name, "x", x, 2);
  const auto rows = dy[0], n = dy[1], k = x[1];
  check(name, "x", x, {rows, k});
  check(name, "dw", dw, {n, k});
  check_rows(name, rows);
  cpu::linear_backward_weight(dw.as<float>(), dy.as<float>(), x.as<float>(), write == Write::add, rows, n, k);
}

void linear_backward_bias(Tensor dbias, Tensor dy, Write write, Stream&) {
  constexpr auto name = "linear_backward_bias";
  check_rank(name, "dy", dy, 2);
  check(name, "dbias", dbias, {dy[1]});
  cpu::sum_rows(dbias.as<float>(), dy.as<float>(), write == Write::add, dy[0], dy[1]);
}

void linear_decode(Tensor y, Tensor x, Tensor w, Tensor bias, Stream&) {
  constexpr auto name = "linear_decode";
  check_rank(name, "x", x, 2);
  check_rank(name, "w", w, 2);
  const auto rows = x[0], n = w[0], k = x[1];
  check(name, "w", w, {n, k});
  check(name, "y", y, {rows, n});
  if (bias) check(name, "bias", bias, {n});
  cpu::linear_decode(y.as<float>(), x.as<float>(), w.as<float>(), optional(bias), rows, n, k);
}

}  // namespace collimate::kernels
