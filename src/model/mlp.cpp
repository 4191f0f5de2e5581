#include <algorithm>
#include <cmath>

#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/matmul.hpp"
#include "collimate/model/transformer.hpp"
#include "model/buffers.hpp"
#include "model/linear.hpp"

namespace collimate {

void MlpLayer::declare(const ModelConfig& config, ParameterLayout& layout, const std::string& name) {
  const auto bounds = shard_bounds(config.mlp, layout.shards());
  const Initial in{1 / std::sqrt(static_cast<double>(config.width))};
  const Initial out{1 / std::sqrt(static_cast<double>(config.mlp) * 2 * config.layers)};
  const bool gated = config.activation == Activation::swiglu;
  if (gated) layout.add(name + ".gate.weight", {config.mlp, config.width}, Split::rows, bounds, true, in);
  layout.add(name + ".up.weight", {config.mlp, config.width}, Split::rows, bounds, true, in);
  if (config.bias.mlp && gated) layout.add(name + ".gate.bias", {config.mlp}, Split::rows, bounds, false, {});
  if (config.bias.mlp) layout.add(name + ".up.bias", {config.mlp}, Split::rows, bounds, false, {});
  layout.add(name + ".down.weight", {config.width, config.mlp}, Split::columns, bounds, true, out);
  if (config.bias.mlp) layout.add(name + ".down.bias", {config.width}, false, {});
}

MlpLayer::MlpLayer(const ModelConfig& config, const ParameterLayout& layout, const LoraConfig& lora, const ParameterLayout& adapters,
                   int block)
    : activation_(config.activation), in_(lora, block), out_(lora, adapters, block, "down") {
  const std::string name = "block." + std::to_string(block);
  const auto bounds = shard_bounds(config.mlp, layout.shards());
  const bool gated = activation_ == Activation::swiglu;
  for (int v = static_cast<int>(layout.held().begin), end = v + static_cast<int>(layout.held().count); v < end; ++v) {
    inner_.push_back(bounds[v + 1] - bounds[v]);
    up_weight_.push_back(gated ? layout.fused({name + ".gate.weight", name + ".up.weight"}, v) : layout.view(name + ".up.weight", v));
    if (config.bias.mlp)
      up_bias_.push_back(gated ? layout.fused({name + ".gate.bias", name + ".up.bias"}, v) : layout.view(name + ".up.bias", v));
    down_weight_.push_back(layout.view(name + ".down.weight", v));
  }
  if (config.bias.mlp) down_bias_ = layout.view(name + ".down.bias");
  std::vector<Part> gate, up;  // in the fused product
  for (const std::int64_t columns : inner_) {
    gate.push_back({0, columns});
    up.push_back({gated ? columns : 0, columns});
  }
  in_.add(adapters, "gate", gate);
  in_.add(adapters, "up", up);
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
void MlpLayer::inner(int v, Tensor x, const Saved& saved, const BlockLease& lease, const AdapterUse& use) const {
  Stream& stream = use.stream;
  const Tensor up = saved.up[v].slice(0, x[0]), inner = saved.inner[v].slice(0, x[0]);
  kernels::linear_forward(up, x, lease.at(up_weight_[v]), up_bias_.empty() ? Tensor() : lease.at(up_bias_[v]), kernels::Write::replace,
                          stream);
  in_.forward(up, v, use);
  if (activation_ == Activation::swiglu)
    kernels::swiglu_forward(inner, up, stream);
  else
    kernels::gelu_forward(inner, up, stream);
}

void MlpLayer::recompute_inner(Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, const Pass& pass) const {
  const AdapterUse use{lease.adapter, scratch.adapter, pass.stream, &pass};
  in_.begin(x, use);
  for (int v = 0; v < static_cast<int>(inner_.size()); ++v)
    if (inner_[v]) inner(v, x, saved, lease, use);
}

void MlpLayer::forward(Tensor y, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, const Pass& pass) const {
  Stream& stream = pass.stream;
  const AdapterUse use{lease.adapter, scratch.adapter, stream, &pass};
  in_.begin(x, use);
  sum_over_shards(y, scratch.tree, stream, [&](int v, Tensor partial) {
    if (inner_[v] == 0) return partial.zero(stream);
    inner(v, x, saved, lease, use);
    const Tensor inner = saved.inner[v].slice(0, x[0]);
    kernels::linear_forward(partial, inner, lease.at(down_weight_[v]), {}, kernels::Write::replace, stream);
    out_.begin(inner, v, use);
  });
  if (down_bias_) kernels::add_bias(y, lease.at(*down_bias_), stream);
  out_.forward(y, use);
}

// dinner = dy Wdown; dup = activation'(dinner); dx = sum over shards of dup Wup; dWdown = dy^T inner; dWup = dup^T x
void MlpLayer::backward(Tensor dx, Tensor dy, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch,
                        const Pass& pass) const {
  Stream& stream = pass.stream;
  const std::int64_t rows = x[0];
  const AdapterUse use{lease.adapter, scratch.adapter, stream, &pass};
  for (int v = 0; v < static_cast<int>(inner_.size()); ++v) out_.begin(saved.inner[v].slice(0, rows), v, use);
  out_.begin_backward(dy, use);
  in_.begin(x, use);
  if (down_bias_) backward_bias(lease, *down_bias_, dy, stream);
  sum_over_shards(dx, scratch.tree, stream, [&](int v, Tensor partial) {
    if (inner_[v] == 0) return partial.zero(stream);
    const Tensor up = saved.up[v].slice(0, rows), inner = saved.inner[v].slice(0, rows);
    const Tensor dinner = matrix_in(scratch.narrow, rows, inner_[v]), dup = matrix_in(scratch.wide, rows, up[1]);
    backward_weight(lease, down_weight_[v], dy, inner, stream);
    kernels::linear_backward_input(dinner, dy, lease.at(down_weight_[v]), kernels::Write::replace, stream);
    out_.backward(dinner, inner, v, use);
    if (activation_ == Activation::swiglu)
      kernels::swiglu_backward(dup, dinner, up, stream);
    else
      kernels::gelu_backward(dup, dinner, up, stream);
    in_.backward(dup, v, use);
    backward_weight(lease, up_weight_[v], dup, x, stream);
    if (!up_bias_.empty()) backward_bias(lease, up_bias_[v], dup, stream);
    kernels::linear_backward_input(partial, dup, lease.at(up_weight_[v]), kernels::Write::replace, stream);
  });
  in_.finish_backward(dx, x, use);
}

void MlpLayer::decode(Tensor y, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Stream& stream) const {
  const AdapterUse use{lease.adapter, scratch.adapter, stream};
  in_.begin(x, use);
  sum_over_shards(y, scratch.tree, stream, [&](int v, Tensor partial) {
    if (inner_[v] == 0) return partial.zero(stream);
    const Tensor up = saved.up[v].slice(0, x[0]), inner = saved.inner[v].slice(0, x[0]);
    kernels::linear_decode(up, x, lease.at(up_weight_[v]), up_bias_.empty() ? Tensor() : lease.at(up_bias_[v]), stream);
    in_.forward(up, v, use);
    if (activation_ == Activation::swiglu)
      kernels::swiglu_forward(inner, up, stream);
    else
      kernels::gelu_forward(inner, up, stream);
    kernels::linear_decode(partial, inner, lease.at(down_weight_[v]), {}, stream);
    out_.begin(inner, v, use);
  });
  if (down_bias_) kernels::add_bias(y, lease.at(*down_bias_), stream);
  out_.forward(y, use);
}

}  // namespace collimate
