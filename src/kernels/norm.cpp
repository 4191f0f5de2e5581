#include "collimate/kernels/norm.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/norm.hpp"

namespace collimate::kernels {
namespace {

float* optional(const Tensor& tensor) { return tensor ? tensor.as<float>() : nullptr; }

}  // namespace

void rms_norm_forward(Tensor y, Tensor rstd, Tensor x, Tensor gain, float eps, Stream&) {
  constexpr auto name = "rms_norm_forward";
  check_rank(name, "x", x, 2);
  check(name, "y", y, x.shape());
  check(name, "rstd", rstd, {x[0]});
  check(name, "gain", gain, {x[1]});
  cpu::norm_forward({y.as<float>(), nullptr, rstd.as<float>(), x.as<float>(), gain.as<float>(), nullptr, eps}, x[0], x[1]);
}

void rms_norm_backward(Tensor dx, Tensor dgain, Tensor dy, Tensor x, Tensor gain, Tensor rstd, Write write_dx, Stream&) {
  constexpr auto name = "rms_norm_backward";
  check_rank(name, "x", x, 2);
  check(name, "dx", dx, x.shape());
  check(name, "dy", dy, x.shape());
  if (dgain) check(name, "dgain", dgain, {x[1]});
  check(name, "gain", gain, {x[1]});
  check(name, "rstd", rstd, {x[0]});
  cpu::norm_backward({dx.as<float>(), optional(dgain), nullptr, dy.as<float>(), x.as<float>(), gain.as<float>(), nullptr,
                      rstd.as<float>(), write_dx == Write::add},
                     x[0], x[1]);
}

void layer_norm_forward(Tensor y, Tensor mean, Tensor rstd, Tensor x, Tensor gain, Tensor bias, float eps, Stream&) {
  constexpr auto name = "layer_norm_forward";
  check_rank(name, "x", x, 2);
  check(name, "y", y, x.shape());
  check(name, "mean", mean, {x[0]});
  check(name, "rstd", rstd, {x[0]});
  check(name, "gain", gain, {x[1]});
  check(name, "bias", bias, {x[1]});
  cpu::norm_forward({y.as<float>(), mean.as<float>(), rstd.as<float>(), x.as<float>(), gain.as<float>(), bias.as<float>(), eps}, x[0],
                    x[1]);
}

void layer_norm_backward(Tensor dx, Tensor dgain, Tensor dbias, Tensor dy, Tensor x, Tensor gain, Tensor mean, Tensor rstd, Write write_dx,
                         Stream&) {
  constexpr auto name = "layer_norm_backward";
  check_rank(name, "x", x, 2);
  check(name, "dx", dx, x.shape());
  check(name, "dy", dy, x.shape());
  if (dgain) check(name, "dgain", dgain, {x[1]});
  if (dgain) check(name, "dbias", dbias, {x[1]});
  check(name, "gain", gain, {x[1]});
  check(name, "mean", mean, {x[0]});
  check(name, "rstd", rstd, {x[0]});
  cpu::norm_backward({dx.as<float>(), optional(dgain), optional(dbias), dy.as<float>(), x.as<float>(), gain.as<float>(),
                      mean.as<float>(), rstd.as<float>(), write_dx == Write::add},
                     x[0], x[1]);
}

}  // namespace collimate::kernels
