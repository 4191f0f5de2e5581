#include "collimate/kernels/elementwise.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/elementwise.hpp"

namespace collimate::kernels {

void add(Tensor y, Tensor a, Tensor b, Stream&) {
  check("add", "a", a, y.shape());
  check("add", "b", b, y.shape());
  check("add", "y", y, y.shape());
  cpu::add(y.as<float>(), a.as<float>(), b.as<float>(), y.count());
}

void add_bias(Tensor y, Tensor bias, Stream&) {
  check_rank("add_bias", "y", y, 2);
  check("add_bias", "bias", bias, {y[1]});
  cpu::add_bias(y.as<float>(), bias.as<float>(), y[0], y[1]);
}

namespace {

void check_columns(std::string_view name, Tensor y, std::int64_t y_first, Tensor x, std::int64_t x_first, std::int64_t columns) {
  check_rank(name, "y", y, 2);
  check_rank(name, "x", x, 2);
  require(y[0] == x[0] && y_first >= 0 && x_first >= 0 && columns >= 0 && y_first + columns <= y[1] && x_first + columns <= x[1],
          "{} cannot bring {} columns from {} of {} to {} of {}", name, columns, x_first, x.shape().text(), y_first, y.shape().text());
}

}  // namespace

void copy_columns(Tensor y, std::int64_t y_first, Tensor x, std::int64_t x_first, std::int64_t columns, Stream&) {
  check_columns("copy_columns", y, y_first, x, x_first, columns);
  cpu::copy_columns(y.as<float>() + y_first, y[1], x.as<float>() + x_first, x[1], y[0], columns);
}

void add_columns(Tensor y, std::int64_t y_first, Tensor x, std::int64_t x_first, std::int64_t columns, Stream&) {
  check_columns("add_columns", y, y_first, x, x_first, columns);
  cpu::add_columns(y.as<float>() + y_first, y[1], x.as<float>() + x_first, x[1], y[0], columns);
}

void scale(Tensor y, float factor, Stream&) {
  check("scale", "y", y, y.shape());
  cpu::scale(y.as<float>(), factor, y.count());
}

void gelu_forward(Tensor y, Tensor x, Stream&) {
  check("gelu_forward", "x", x, x.shape());
  check("gelu_forward", "y", y, x.shape());
  cpu::gelu_forward(y.as<float>(), x.as<float>(), x.count());
}

void gelu_backward(Tensor dx, Tensor dy, Tensor x, Stream&) {
  check("gelu_backward", "x", x, x.shape());
  check("gelu_backward", "dx", dx, x.shape());
  check("gelu_backward", "dy", dy, x.shape());
  cpu::gelu_backward(dx.as<float>(), dy.as<float>(), x.as<float>(), x.count());
}

void swiglu_forward(Tensor y, Tensor gate_up, Stream&) {
  check_rank("swiglu_forward", "y", y, 2);
  check("swiglu_forward", "gate_up", gate_up, {y[0], 2 * y[1]});
  cpu::swiglu_forward(y.as<float>(), gate_up.as<float>(), y[0], y[1]);
}

void swiglu_backward(Tensor dgate_up, Tensor dy, Tensor gate_up, Stream&) {
  check_rank("swiglu_backward", "dy", dy, 2);
  check("swiglu_backward", "gate_up", gate_up, {dy[0], 2 * dy[1]});
  check("swiglu_backward", "dgate_up", dgate_up, {dy[0], 2 * dy[1]});
  cpu::swiglu_backward(dgate_up.as<float>(), dy.as<float>(), gate_up.as<float>(), dy[0], dy[1]);
}

void dropout(Tensor y, Tensor x, double probability, const RandomKey& key, Tensor samples, Tensor positions, std::uint32_t site, Stream&,
             std::int64_t first) {
  constexpr auto name = "dropout";
  check_rank(name, "x", x, 2);
  check(name, "y", y, x.shape());
  check(name, "samples", samples, {x[0]}, DType::i64);
  check(name, "positions", positions, {x[0]}, DType::i32);
  require(probability >= 0 && probability < 1, "dropout needs a probability of at least 0 and below 1, and was given {}", probability);
  require(site < 1u << 14 && first % 4 == 0 && first + x[1] <= 1 << 20,
          "dropout counts 16,384 places and 1,048,576 columns, and was given place {} and {} columns from {} on", site, x[1], first);
  cpu::dropout(y.as<float>(), x.as<float>(), probability, key, samples.as<std::int64_t>(), positions.as<std::int32_t>(), site, first, x[0],
               x[1]);
}

}  // namespace collimate::kernels
