#include "collimate/kernels/attention.hpp"

#include <cmath>

#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/matmul.hpp"
#include "collimate/model/transformer.hpp"

namespace collimate {
namespace {

// Query heads of shard v are [H*v/V, H*(v+1)/V); its key/value heads are those that these read.
std::vector<std::int64_t> key_value_bounds(const ModelConfig& config, int shards) {
  const std::int64_t group = config.heads / config.kv_heads;
  std::vector<std::int64_t> bounds = shard_bounds(config.heads, shards);
  for (std::int64_t& bound : bounds) {
    require(
        bound % group == 0,
        "numerics.tensor_shards = {} would cut the group of {} query heads that share a key/value head ({} heads, {} key/value heads): use "
        "at most {} shards",
        shards, group, config.heads, config.kv_heads, config.kv_heads);
    bound /= group;
  }
  return bounds;
}

std::vector<std::int64_t> times(std::vector<std::int64_t> bounds, std::int64_t unit) {
  for (std::int64_t& bound : bounds) bound *= unit;
  return bounds;
}

Tensor rows_of(const Tensor& tensor, std::int64_t rows) { return tensor.slice(0, rows); }

}  // namespace

void AttentionLayer::declare(const ModelConfig& config, ParameterLayout& layout, const std::string& name) {
  const std::int64_t size = config.head_size, queries = config.heads * size, keys = config.kv_heads * size;
  const auto query_bounds = shard_bounds(config.heads, layout.shards(), size);
  const auto key_bounds = times(key_value_bounds(config, layout.shards()), size);
  const Initial in{1 / std::sqrt(static_cast<double>(config.width))};
  const Initial out{1 / std::sqrt(static_cast<double>(queries) * 2 * config.layers)};
  layout.add(name + ".query.weight", {queries, config.width}, Split::rows, query_bounds, true, in);
  layout.add(name + ".key.weight", {keys, config.width}, Split::rows, key_bounds, true, in);
  layout.add(name + ".value.weight", {keys, config.width}, Split::rows, key_bounds, true, in);
  if (config.bias) {
    layout.add(name + ".query.bias", {queries}, Split::rows, query_bounds, false, {});
    layout.add(name + ".key.bias", {keys}, Split::rows, key_bounds, false, {});
    layout.add(name + ".value.bias", {keys}, Split::rows, key_bounds, false, {});
  }
  layout.add(name + ".output.weight", {config.width, queries}, Split::columns, query_bounds, true, out);
  if (config.bias) layout.add(name + ".output.bias", {config.width}, false, {});
}

AttentionLayer::AttentionLayer(const ModelConfig& config, const ParameterLayout& layout, const std::string& name)
    : width_(config.width), rotary_(config.positions == Positions::rotary) {
  const auto queries = shard_bounds(config.heads, layout.shards());
  const auto keys = key_value_bounds(config, layout.shards());
  for (int v = 0; v < layout.shards(); ++v) {
    heads_.push_back(
        {queries[v + 1] - queries[v], keys[v + 1] - keys[v], config.head_size, config.heads / config.kv_heads, queries[v], keys[v]});
    in_weight_.push_back(layout.fused({name + ".query.weight", name + ".key.weight", name + ".value.weight"}, v));
    if (config.bias) in_bias_.push_back(layout.fused({name + ".query.bias", name + ".key.bias", name + ".value.bias"}, v));
    out_weight_.push_back(layout.view(name + ".output.weight", v));
  }
  if (config.bias) out_bias_ = layout.view(name + ".output.bias");
}

AttentionLayer::Saved AttentionLayer::take(Arena& arena, std::int64_t rows) const {
  Saved saved;
  for (const kernels::Heads& heads : heads_) {
    saved.qkv.push_back(arena.take({rows, heads.columns()}));
    saved.out.push_back(arena.take({rows, heads.query * heads.size}));
    saved.lse.push_back(arena.take({rows, heads.query}));
  }
  return saved;
}

void AttentionLayer::forward(Tensor y, Tensor x, const Saved& saved, const Lease& lease, const Scratch& scratch, Tensor rotary,
                             const Pass& pass, int layer) const {
  Stream& stream = pass.stream;
  sum_over_shards(y, scratch.tree, static_cast<int>(heads_.size()), stream, [&](int v, Tensor partial) {
    const kernels::Heads& heads = heads_[v];
    if (heads.query == 0) return partial.zero(stream);
    const Tensor qkv = rows_of(saved.qkv[v], x[0]), out = rows_of(saved.out[v], x[0]), lse = rows_of(saved.lse[v], x[0]);
    kernels::linear_forward(qkv, x, lease.at(in_weight_[v]), in_bias_.empty() ? Tensor() : lease.at(in_bias_[v]), kernels::Write::replace,
                            stream);
    if (rotary_) kernels::rotary(qkv, pass.grain.positions, rotary, heads, false, stream);
    if (pass.cache)
      kernels::cache_write(pass.cache->keys[layer][v], pass.cache->values[layer][v], qkv, pass.grain.offsets, pass.slots, heads, stream);
    kernels::attention_forward(out, lse, qkv, pass.grain.offsets, heads, stream);
    kernels::linear_forward(partial, out, lease.at(out_weight_[v]), {}, kernels::Write::replace, stream);
  });
  if (!in_bias_.empty()) kernels::add_bias(y, lease.at(out_bias_), stream);
}

// dO = dy Wo; (dq, dk, dv) = attention'(dO); dx = sum over shards of dqkv Wqkv; dWo = dy^T O; dWqkv = dqkv^T x
void AttentionLayer::backward(Tensor dx, Tensor dy, Tensor x, const Saved& saved, const Lease& lease, const Scratch& scratch, Tensor rotary,
                              const Pass& pass) const {
  Stream& stream = pass.stream;
  const std::int64_t rows = x[0];
  if (!in_bias_.empty()) kernels::linear_backward_bias(lease.gradient_at(out_bias_), dy, kernels::Write::replace, stream);
  sum_over_shards(dx, scratch.tree, static_cast<int>(heads_.size()), stream, [&](int v, Tensor partial) {
    const kernels::Heads& heads = heads_[v];
    if (heads.query == 0) return partial.zero(stream);
    const Tensor qkv = rows_of(saved.qkv[v], rows), out = rows_of(saved.out[v], rows), lse = rows_of(saved.lse[v], rows);
    const Tensor dout = scratch.narrow.slice(0, rows * out[1]).reshape(out.shape());
    const Tensor dqkv = scratch.wide.slice(0, rows * qkv[1]).reshape(qkv.shape());
    const Tensor delta = scratch.delta.slice(0, rows * heads.query).reshape({rows, heads.query});
    kernels::linear_backward_weight(lease.gradient_at(out_weight_[v]), dy, out, kernels::Write::replace, stream);
    kernels::linear_backward_input(dout, dy, lease.at(out_weight_[v]), kernels::Write::replace, stream);
    kernels::attention_backward(dqkv, dout, out, lse, qkv, pass.grain.offsets, delta, heads, stream);
    if (rotary_) kernels::rotary(dqkv, pass.grain.positions, rotary, heads, true, stream);
    kernels::linear_backward_weight(lease.gradient_at(in_weight_[v]), dqkv, x, kernels::Write::replace, stream);
    if (!in_bias_.empty()) kernels::linear_backward_bias(lease.gradient_at(in_bias_[v]), dqkv, kernels::Write::replace, stream);
    kernels::linear_backward_input(partial, dqkv, lease.at(in_weight_[v]), kernels::Write::replace, stream);
  });
}

void AttentionLayer::decode(Tensor y, Tensor x, const Saved& saved, const Lease& lease, const Scratch& scratch, Tensor rotary,
                            const KvCache& cache, int layer, Tensor slots, Tensor positions, Stream& stream) const {
  sum_over_shards(y, scratch.tree, static_cast<int>(heads_.size()), stream, [&](int v, Tensor partial) {
    const kernels::Heads& heads = heads_[v];
    if (heads.query == 0) return partial.zero(stream);
    const Tensor qkv = rows_of(saved.qkv[v], x[0]), out = rows_of(saved.out[v], x[0]);
    kernels::linear_decode(qkv, x, lease.at(in_weight_[v]), in_bias_.empty() ? Tensor() : lease.at(in_bias_[v]), stream);
    if (rotary_) kernels::rotary(qkv, positions, rotary, heads, false, stream);
    kernels::attention_decode(out, qkv, cache.keys[layer][v], cache.values[layer][v], slots, positions, heads, stream);
    kernels::linear_decode(partial, out, lease.at(out_weight_[v]), {}, stream);
  });
  if (!in_bias_.empty()) kernels::add_bias(y, lease.at(out_bias_), stream);
}

}  // namespace collimate
