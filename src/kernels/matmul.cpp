#include "collimate/kernels/matmul.hpp"

#include "collimate/kernels/rows.hpp"
#include "kernels/check.hpp"
#include "kernels/table.hpp"

namespace collimate::kernels {
namespace {

void check_rows(std::string_view operation, std::int64_t rows) {
  require(rows == padded_rows(rows), "{} needs {} rows instead of {}, so that the last block of {} has at least {}", operation,
          padded_rows(rows), rows, row_block, least_rows);
}

/// What is added to, or goes on, is not rounded in between.
Types output(Write write) { return write == Write::replace ? f32_or_bf16 : Types(DType::f32); }

void check_write(std::string_view operation, Write write) { ensure(write != Write::go_on, "{} cannot go on", operation); }

}  // namespace

void linear_forward(Tensor y, Tensor x, Tensor w, Tensor bias, Write write, Stream& stream) {
  constexpr auto name = "linear_forward";
  check_write(name, write);
  check_rank(name, "x", x, 2, f32_or_bf16);
  check_rank(name, "w", w, 2, f32_or_bf16);
  const auto rows = x[0], n = w[0], k = x[1];
  check(name, "w", w, {n, k}, f32_or_bf16);
  check(name, "y", y, {rows, n}, output(write));
  if (bias) check(name, "bias", bias, {n}, f32_or_bf16);
  check_rows(name, rows);
  table_of(y).linear_forward(y, x, w, bias, write, stream);
}

void linear_backward_input(Tensor dx, Tensor dy, Tensor w, Write write, Stream& stream) {
  constexpr auto name = "linear_backward_input";
  check_rank(name, "dy", dy, 2, f32_or_bf16);
  check_rank(name, "w", w, 2, f32_or_bf16);
  const auto rows = dy[0], n = dy[1], k = w[1];
  check(name, "w", w, {n, k}, f32_or_bf16);
  check(name, "dx", dx, {rows, k}, output(write));
  check_rows(name, rows);
  table_of(dx).linear_backward_input(dx, dy, w, write, stream);
}

void linear_backward_weight(Tensor dw, Tensor dy, Tensor x, Write write, Stream& stream) {
  constexpr auto name = "linear_backward_weight";
  check_write(name, write);
  check_rank(name, "dy", dy, 2, f32_or_bf16);
  check_rank(name, "x", x, 2, f32_or_bf16);
  const auto rows = dy[0], n = dy[1], k = x[1];
  check(name, "x", x, {rows, k}, f32_or_bf16);
  check(name, "dw", dw, {n, k});
  check_rows(name, rows);
  table_of(dw).linear_backward_weight(dw, dy, x, write, stream);
}

void linear_backward_bias(Tensor dbias, Tensor dy, Write write, Stream& stream) {
  constexpr auto name = "linear_backward_bias";
  check_rank(name, "dy", dy, 2, f32_or_bf16);
  check(name, "dbias", dbias, {dy[1]});
  table_of(dbias).linear_backward_bias(dbias, dy, write, stream);
}

void linear_decode(Tensor y, Tensor x, Tensor w, Tensor bias, Stream& stream) {
  constexpr auto name = "linear_decode";
  check_rank(name, "x", x, 2, f32_or_bf16);
  check_rank(name, "w", w, 2, f32_or_bf16);
  const auto rows = x[0], n = w[0], k = x[1];
  check(name, "w", w, {n, k}, f32_or_bf16);
  check(name, "y", y, {rows, n}, f32_or_bf16);
  if (bias) check(name, "bias", bias, {n}, f32_or_bf16);
  table_of(y).linear_decode(y, x, w, bias, stream);
}

}  // namespace collimate::kernels
