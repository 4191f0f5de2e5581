#include "collimate/kernels/norm.hpp"

#include "collimate/model/transformer.hpp"

namespace collimate {

void NormLayer::declare(const ModelConfig& config, ParameterLayout& layout, const std::string& name) {
  layout.add(name + ".gain", {config.width}, false, {0, 1});
  if (config.norm == Norm::layer) layout.add(name + ".bias", {config.width}, false, {0, 0});
}

NormLayer::NormLayer(const ModelConfig& config, const ParameterLayout& layout, const std::string& name)
    : kind_(config.norm), width_(config.width), epsilon_(static_cast<float>(config.norm_epsilon)), gain_(layout.view(name + ".gain")) {
  if (kind_ == Norm::layer) bias_ = layout.view(name + ".bias");
}

NormSaved NormLayer::take(Arena& arena, std::int64_t rows) const {
  NormSaved saved;
  saved.y = arena.take({rows, width_});
  if (kind_ == Norm::layer) saved.mean = arena.take({rows});
  saved.rstd = arena.take({rows});
  return saved;
}

void NormLayer::forward(const NormSaved& saved, Tensor x, const Lease& lease, Stream& stream) const {
  const Tensor y = saved.y.slice(0, x[0]), rstd = saved.rstd.slice(0, x[0]);
  if (kind_ == Norm::rms) return kernels::rms_norm_forward(y, rstd, x, lease.at(gain_), epsilon_, stream);
  kernels::layer_norm_forward(y, saved.mean.slice(0, x[0]), rstd, x, lease.at(gain_), lease.at(bias_), epsilon_, stream);
}

void NormLayer::backward(Tensor dx, Tensor dy, Tensor x, const NormSaved& saved, const Lease& lease, Stream& stream) const {
  const Tensor rstd = saved.rstd.slice(0, x[0]), dgain = lease.gradient_at(gain_);
  if (kind_ == Norm::rms) return kernels::rms_norm_backward(dx, dgain, dy, x, lease.at(gain_), rstd, kernels::Write::add, kernels::Write::replace, stream);
  kernels::layer_norm_backward(dx, dgain, lease.gradient_at(bias_), dy, x, lease.at(gain_), saved.mean.slice(0, x[0]), rstd,
                               kernels::Write::add, kernels::Write::replace, stream);
}

}  // namespace collimate
