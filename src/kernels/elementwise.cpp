#include "collimate/kernels/elementwise.hpp"

#include "kernels/check.hpp"
#include "kernels/table.hpp"

namespace collimate::kernels {

void cast(Tensor to, Tensor from, Stream& stream) {
  check("cast", "to", to, to.shape(), f32_or_bf16);
  check("cast", "from", from, to.shape(), to.dtype() == DType::bf16 ? DType::f32 : DType::bf16);
  table_of(to).cast(to, from, stream);
}

void add(Tensor y, Tensor a, Tensor b, Stream& stream) {
  const DType type = y.dtype() == DType::i32 ? DType::i32 : DType::f32;
  check("add", "a", a, y.shape(), type);
  check("add", "b", b, y.shape(), type);
  check("add", "y", y, y.shape(), type);
  table_of(y).add(y, a, b, stream);
}

void add_bias(Tensor y, Tensor bias, Stream& stream) {
  check_rank("add_bias", "y", y, 2);
  check("add_bias", "bias", bias, {y[1]}, f32_or_bf16);
  table_of(y).add_bias(y, bias, stream);
}

namespace {

void check_columns(std::string_view name, Tensor y, std::int64_t y_first, Tensor x, std::int64_t x_first, std::int64_t columns) {
  check_rank(name, "y", y, 2);
  check_rank(name, "x", x, 2);
  require(y[0] == x[0] && y_first >= 0 && x_first >= 0 && columns >= 0 && y_first + columns <= y[1] && x_first + columns <= x[1],
          "{} cannot bring {} columns from {} of {} to {} of {}", name, columns, x_first, x.shape().text(), y_first, y.shape().text());
}

}  // namespace

void copy_columns(Tensor y, std::int64_t y_first, Tensor x, std::int64_t x_first, std::int64_t columns, Stream& stream) {
  check_columns("copy_columns", y, y_first, x, x_first, columns);
  table_of(y).copy_columns(y, y_first, x, x_first, columns, stream);
}

void add_columns(Tensor y, std::int64_t y_first, Tensor x, std::int64_t x_first, std::int64_t columns, Stream& stream) {
  check_columns("add_columns", y, y_first, x, x_first, columns);
  table_of(y).add_columns(y, y_first, x, x_first, columns, stream);
}

void scale(Tensor y, float factor, Stream& stream) {
  check("scale", "y", y, y.shape());
  table_of(y).scale(y, factor, stream);
}

void gelu_forward(Tensor y, Tensor x, Stream& stream) {
  check("gelu_forward", "x", x, x.shape(), f32_or_bf16);
  check("gelu_forward", "y", y, x.shape(), f32_or_bf16);
  table_of(y).gelu_forward(y, x, stream);
}

void gelu_backward(Tensor dx, Tensor dy, Tensor x, Stream& stream) {
  check("gelu_backward", "x", x, x.shape(), f32_or_bf16);
  check("gelu_backward", "dx", dx, x.shape(), f32_or_bf16);
  check("gelu_backward", "dy", dy, x.shape(), f32_or_bf16);
  table_of(dx).gelu_backward(dx, dy, x, stream);
}

void swiglu_forward(Tensor y, Tensor gate_up, Stream& stream) {
  check_rank("swiglu_forward", "y", y, 2, f32_or_bf16);
  check("swiglu_forward", "gate_up", gate_up, {y[0], 2 * y[1]}, f32_or_bf16);
  table_of(y).swiglu_forward(y, gate_up, stream);
}

void swiglu_backward(Tensor dgate_up, Tensor dy, Tensor gate_up, Stream& stream) {
  check_rank("swiglu_backward", "dy", dy, 2, f32_or_bf16);
  check("swiglu_backward", "gate_up", gate_up, {dy[0], 2 * dy[1]}, f32_or_bf16);
  check("swiglu_backward", "dgate_up", dgate_up, {dy[0], 2 * dy[1]}, f32_or_bf16);
  table_of(dgate_up).swiglu_backward(dgate_up, dy, gate_up, stream);
}

void dropout(Tensor y, Tensor x, double probability, const RandomKey& key, Tensor samples, Tensor positions, std::uint32_t site, Stream& stream,
             std::int64_t first) {
  constexpr auto name = "dropout";
  check_rank(name, "x", x, 2);
  check(name, "y", y, x.shape());
  check(name, "samples", samples, {x[0]}, DType::i64);
  check(name, "positions", positions, {x[0]}, DType::i32);
  require(probability >= 0 && probability < 1, "dropout needs a probability of at least 0 and below 1, and was given {}", probability);
  require(site < 1u << 14 && first % 4 == 0 && first + x[1] <= 1 << 20,
          "dropout counts 16,384 places and 1,048,576 columns, and was given place {} and {} columns from {} on", site, x[1], first);
  table_of(y).dropout(y, x, probability, key, samples, positions, site, first, stream);
}

}  // namespace collimate::kernels
