#include <algorithm>
#include <cmath>

#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/matmul.hpp"
#include "collimate/model/transformer.hpp"

namespace collimate {
namespace {

Tensor part_of(const Tensor& buffer, std::int64_t rows, std::int64_t columns) {
  return buffer.slice(0, rows * columns).reshape({rows, columns});
}

}  // namespace

void MlpLayer::declare(const ModelConfig& config, ParameterLayout& layout, const std::string& name) {
  const auto bounds = shard_bounds(config.mlp, layout.shards());
  const Initial in{1 / std::sqrt(static_cast<double>(config.width))};
  const Initial out{1 / std::sqrt(static_cast<double>(config.mlp) * 2 * config.layers)};
  const bool gated = config.activation == Activation::swiglu;
  if (gated) layout.add(name + ".gate.weight", {config.mlp, config.width}, Split::rows, bounds, true, in);
  layout.add(name + ".up.weight", {config.mlp, config.width}, Split::rows, bounds, true, in);
  if (config.bias && gated) layout.add(name + ".gate.bias", {config.mlp}, Split::rows, bounds, false, {});
  if (config.bias) layout.add(name + ".up.bias", {config.mlp}, Split::rows, bounds, false, {});
  layout.add(name + ".down.weight", {config.width, config.mlp}, Split::columns, bounds, true, out);
  if (config.bias) layout.add(name + ".down.bias", {config.width}, false, {});
}

MlpLayer::MlpLayer(const ModelConfig& config, const ParameterLayout& layout, const std::string& name) : activation_(config.activation) {
  const auto bounds = shard_bounds(config.mlp, layout.shards());
  const bool gated = activation_ == Activation::swiglu;
  for (int v = static_cast<int>(layout.held().begin), end = v + static_cast<int>(layout.held().count); v < end; ++v) {
    inner_.push_back(bounds[v + 1] - bounds[v]);
    up_weight_.push_back(gated ? layout.fused({name + ".gate.weight", name + ".up.weight"}, v) : layout.view(name + ".up.weight", v));
    if (config.bias)
      up_bias_.push_back(gated ? layout.fused({name + ".gate.bias", name + ".up.bias"}, v) : layout.view(name + ".up.bias", v));
    down_weight_.push_back(layout.view(name + ".down.weight", v));
  }
  if (config.bias) down_bias_ = layout.view(name + ".down.bias");
}

std::int64_t MlpLayer::widest_inner() const { return *std::max_element(inner_.begin(), inner_.end()); }
std::int64_t MlpLayer::widest_up() const { return widest_inner() * (activation_ == Activation::swiglu ? 2 : 1); }

MlpLayer::Saved MlpLayer::take(Arena& arena, std::int64_t rows) const {
  Saved saved;
  for (std::size_t v = 0; v < inner_.size(); ++v) {
    saved.up.push_back(arena.take({rows, up_weight_[v].shape[0]}));
    saved.inner.push_back(arena.take({rows, inner_[v]}));
  }
  return saved;
}

/// saved.up and saved.inner of shard v.
void MlpLayer::inner(int v, Tensor x, const Saved& saved, const Lease& lease, Stream& stream) const {
  const Tensor up = saved.up[v].slice(0, x[0]), inner = saved.inner[v].slice(0, x[0]);
  kernels::linear_forward(up, x, lease.at(up_weight_[v]), up_bias_.empty() ? Tensor() : lease.at(up_bias_[v]), kernels::Write::replace,
                          stream);
  if (activation_ == Activation::swiglu)
    kernels::swiglu_forward(inner, up, stream);
  else
    kernels::gelu_forward(inner, up, stream);
}

void MlpLayer::recompute_inner(Tensor x, const Saved& saved, const Lease& lease, Stream& stream) const {
  for (int v = 0; v < static_cast<int>(inner_.size()); ++v)
    if (inner_[v]) inner(v, x, saved, lease, stream);
}

void MlpLayer::forward(Tensor y, Tensor x, const Saved& saved, const Lease& lease, const Scratch& scratch, Stream& stream) const {
  sum_over_shards(y, scratch.tree, stream, [&](int v, Tensor partial) {
    if (inner_[v] == 0) return partial.zero(stream);
    inner(v, x, saved, lease, stream);
    kernels::linear_forward(partial, saved.inner[v].slice(0, x[0]), lease.at(down_weight_[v]), {}, kernels::Write::replace, stream);
  });
  if (!up_bias_.empty()) kernels::add_bias(y, lease.at(down_bias_), stream);
}

// dinner = dy Wdown; dup = activation'(dinner); dx = sum over shards of dup Wup; dWdown = dy^T inner; dWup = dup^T x
void MlpLayer::backward(Tensor dx, Tensor dy, Tensor x, const Saved& saved, const Lease& lease, const Scratch& scratch,
                        Stream& stream) const {
  const std::int64_t rows = x[0];
  if (!up_bias_.empty()) kernels::linear_backward_bias(lease.gradient_at(down_bias_), dy, kernels::Write::replace, stream);
  sum_over_shards(dx, scratch.tree, stream, [&](int v, Tensor partial) {
    if (inner_[v] == 0) return partial.zero(stream);
    const Tensor up = saved.up[v].slice(0, rows), inner = saved.inner[v].slice(0, rows);
    const Tensor dinner = part_of(scratch.narrow, rows, inner_[v]), dup = part_of(scratch.wide, rows, up[1]);
    kernels::linear_backward_weight(lease.gradient_at(down_weight_[v]), dy, inner, kernels::Write::replace, stream);
    kernels::linear_backward_input(dinner, dy, lease.at(down_weight_[v]), kernels::Write::replace, stream);
    if (activation_ == Activation::swiglu)
      kernels::swiglu_backward(dup, dinner, up, stream);
    else
      kernels::gelu_backward(dup, dinner, up, stream);
    kernels::linear_backward_weight(lease.gradient_at(up_weight_[v]), dup, x, kernels::Write::replace, stream);
    if (!up_bias_.empty()) kernels::linear_backward_bias(lease.gradient_at(up_bias_[v]), dup, kernels::Write::replace, stream);
    kernels::linear_backward_input(partial, dup, lease.at(up_weight_[v]), kernels::Write::replace, stream);
  });
}

void MlpLayer::decode(Tensor y, Tensor x, const Saved& saved, const Lease& lease, const Scratch& scratch, Stream& stream) const {
  sum_over_shards(y, scratch.tree, stream, [&](int v, Tensor partial) {
    if (inner_[v] == 0) return partial.zero(stream);
    const Tensor up = saved.up[v].slice(0, x[0]), inner = saved.inner[v].slice(0, x[0]);
    kernels::linear_decode(up, x, lease.at(up_weight_[v]), up_bias_.empty() ? Tensor() : lease.at(up_bias_[v]), stream);
    if (activation_ == Activation::swiglu)
      kernels::swiglu_forward(inner, up, stream);
    else
      kernels::gelu_forward(inner, up, stream);
    kernels::linear_decode(partial, inner, lease.at(down_weight_[v]), {}, stream);
  });
  if (!up_bias_.empty()) kernels::add_bias(y, lease.at(down_bias_), stream);
}

}  // namespace collimate
