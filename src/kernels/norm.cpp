#include "collimate/kernels/norm.hpp"

#include "kernels/check.hpp"
#include "kernels/table.hpp"

namespace collimate::kernels {

void rms_norm_forward(Tensor y, Tensor rstd, Tensor x, Tensor gain, float eps, Stream& stream) {
  constexpr auto name = "rms_norm_forward";
  check_rank(name, "x", x, 2);
  check(name, "y", y, x.shape(), f32_or_bf16);
  check(name, "rstd", rstd, {x[0]});
  check(name, "gain", gain, {x[1]}, f32_or_bf16);
  table_of(y).rms_norm_forward(y, rstd, x, gain, eps, stream);
}

void rms_norm_backward(Tensor dx, Tensor dgain, Tensor dy, Tensor x, Tensor gain, Tensor rstd, Write write_dx, Write write_dgain,
                       Stream& stream) {
  constexpr auto name = "rms_norm_backward";
  check_rank(name, "x", x, 2);
  check(name, "dx", dx, x.shape());
  check(name, "dy", dy, x.shape());
  if (dgain) check(name, "dgain", dgain, {x[1]});
  check(name, "gain", gain, {x[1]}, f32_or_bf16);
  check(name, "rstd", rstd, {x[0]});
  table_of(dx).rms_norm_backward(dx, dgain, dy, x, gain, rstd, write_dx, write_dgain, stream);
}

void layer_norm_forward(Tensor y, Tensor mean, Tensor rstd, Tensor x, Tensor gain, Tensor bias, float eps, Stream& stream) {
  constexpr auto name = "layer_norm_forward";
  check_rank(name, "x", x, 2);
  check(name, "y", y, x.shape(), f32_or_bf16);
  check(name, "mean", mean, {x[0]});
  check(name, "rstd", rstd, {x[0]});
  check(name, "gain", gain, {x[1]}, f32_or_bf16);
  check(name, "bias", bias, {x[1]}, f32_or_bf16);
  table_of(y).layer_norm_forward(y, mean, rstd, x, gain, bias, eps, stream);
}

void layer_norm_backward(Tensor dx, Tensor dgain, Tensor dbias, Tensor dy, Tensor x, Tensor gain, Tensor mean, Tensor rstd, Write write_dx,
                         Write write_parameters, Stream& stream) {
  constexpr auto name = "layer_norm_backward";
  check_rank(name, "x", x, 2);
  check(name, "dx", dx, x.shape());
  check(name, "dy", dy, x.shape());
  if (dgain) check(name, "dgain", dgain, {x[1]});
  if (dbias) check(name, "dbias", dbias, {x[1]});
  require(bool(dgain) == bool(dbias), "layer_norm_backward computes dgain and dbias, or neither");
  check(name, "gain", gain, {x[1]}, f32_or_bf16);
  check(name, "mean", mean, {x[0]});
  check(name, "rstd", rstd, {x[0]});
  table_of(dx).layer_norm_backward(dx, dgain, dbias, dy, x, gain, mean, rstd, write_dx, write_parameters, stream);
}

}  // namespace collimate::kernels
