#include "collimate/kernels/attention.hpp"

#include <algorithm>
#include <cmath>

#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/matmul.hpp"
#include "collimate/model/transformer.hpp"
#include "model/buffers.hpp"
#include "model/linear.hpp"

namespace collimate {
namespace {

using kernels::Write;

/// Query heads of shard v are [H*v/V, H*(v+1)/V); its key/value heads are those that these read.
struct HeadBounds {
  std::vector<std::int64_t> query, key_begin, key_end;
  bool shared = false;  ///< two shards read one key/value head
};

HeadBounds head_bounds(const ModelConfig& config, int shards) {
  const std::int64_t group = config.heads / config.kv_heads;
  HeadBounds bounds;
  bounds.query = shard_bounds(config.heads, shards);
  for (int v = 0; v < shards; ++v) {
    const std::int64_t begin = bounds.query[v], end = bounds.query[v + 1];
    bounds.key_begin.push_back(begin / group);
    bounds.key_end.push_back(begin == end ? begin / group : (end + group - 1) / group);
    bounds.shared |= begin % group != 0;
  }
  return bounds;
}

Tensor rows_of(const Tensor& tensor, std::int64_t rows) { return tensor.slice(0, rows); }

const char* const key_value[] = {".key", ".value"};

}  // namespace

void AttentionLayer::declare(const ModelConfig& config, ParameterLayout& layout, const std::string& name) {
  const std::int64_t size = config.head_size, queries = config.heads * size, keys = config.kv_heads * size;
  const HeadBounds heads = head_bounds(config, layout.shards());
  const auto query_bounds = shard_bounds(config.heads, layout.shards(), size);
  std::vector<std::int64_t> key_bounds;
  for (const std::int64_t bound : query_bounds) key_bounds.push_back(bound / (config.heads / config.kv_heads));
  const Initial in{1 / std::sqrt(static_cast<double>(config.width))};
  const Initial out{1 / std::sqrt(static_cast<double>(queries) * 2 * config.layers)};
  const auto add_key_value = [&](const std::string& what, const Shape& shape, bool decays, const Initial& initial) {
    for (const char* which : key_value) {
      if (heads.shared)
        layout.add(name + which + what, shape, decays, initial);
      else
        layout.add(name + which + what, shape, Split::rows, key_bounds, decays, initial);
    }
  };
  layout.add(name + ".query.weight", {queries, config.width}, Split::rows, query_bounds, true, in);
  add_key_value(".weight", {keys, config.width}, true, in);
  if (config.bias.query_key_value) {
    layout.add(name + ".query.bias", {queries}, Split::rows, query_bounds, false, {});
    add_key_value(".bias", {keys}, false, {});
  }
  layout.add(name + ".output.weight", {config.width, queries}, Split::columns, query_bounds, true, out);
  if (config.bias.output) layout.add(name + ".output.bias", {config.width}, false, {});
}

AttentionLayer::AttentionLayer(const ModelConfig& config, const ParameterLayout& layout, const LoraConfig& lora,
                               const ParameterLayout& adapters, int block)
    : width_(config.width),
      rotary_(config.positions == Positions::rotary),
      bias_(config.bias.query_key_value),
      in_(lora, block),
      out_(lora, adapters, block, "output") {
  const std::string name = "block." + std::to_string(block);
  const HeadBounds bounds = head_bounds(config, layout.shards());
  if (bounds.shared) shared_.emplace();
  for (int v = static_cast<int>(layout.held().begin), end = v + static_cast<int>(layout.held().count); v < end; ++v) {
    heads_.push_back({bounds.query[v + 1] - bounds.query[v], bounds.key_end[v] - bounds.key_begin[v], config.head_size,
                      config.heads / config.kv_heads, bounds.query[v], bounds.key_begin[v]});
    out_weight_.push_back(layout.view(name + ".output.weight", v));
    if (shared_) {
      shared_->query.push_back(layout.view(name + ".query.weight", v));
      if (bias_) shared_->query_bias.push_back(layout.view(name + ".query.bias", v));
      continue;
    }
    in_weight_.push_back(layout.fused({name + ".query.weight", name + ".key.weight", name + ".value.weight"}, v));
    if (bias_) in_bias_.push_back(layout.fused({name + ".query.bias", name + ".key.bias", name + ".value.bias"}, v));
  }
  for (int which = 0; shared_ && which < 2; ++which) {
    shared_->weight[which] = layout.view(name + key_value[which] + ".weight");
    if (bias_) shared_->bias[which] = layout.view(name + key_value[which] + ".bias");
  }
  if (config.bias.output) out_bias_ = layout.view(name + ".output.bias");
  std::vector<Part> query, key, value;  // columns of qkv
  std::vector<std::int64_t> first_row;
  for (const kernels::Heads& heads : heads_) {
    const std::int64_t queries = heads.query * heads.size, keys = heads.key_value * heads.size;
    query.push_back({0, queries});
    key.push_back({queries, keys});
    value.push_back({queries + keys, keys});
    if (shared_) first_row.push_back(heads.first_key_value * heads.size);
  }
  in_.add(adapters, "query", query);
  in_.add(adapters, "key", key, first_row);
  in_.add(adapters, "value", value, first_row);
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

void AttentionLayer::take_scratch(Arena& arena, std::int64_t rows, bool backward, Scratch& scratch) const {
  if (!shared_) return;
  std::int64_t widest = 0;
  for (const kernels::Heads& heads : heads_) widest = std::max(widest, std::max(heads.query, heads.key_value) * heads.size);
  scratch.part = arena.take({rows * widest});
  if (!backward) return;
  for (const kernels::Heads& heads : heads_) scratch.dkey_value.push_back(arena.take({rows * 2 * heads.key_value * heads.size}));
  for (int v = 1; v < scratch.key_value.shards; v *= 2) scratch.key_value.room.push_back(arena.take(shared_->weight[0].shape));
}

/// qkv of shard v by one product, or (where key/value heads are shared) by one for each of query, keys and values.
/// product(y, weight, bias): y = x weight^T + bias.
template <class Product>
void AttentionLayer::project(Tensor qkv, int v, const Lease& lease, const Scratch& scratch, Stream& stream, const Product& product) const {
  if (!shared_) return product(qkv, lease.at(in_weight_[v]), bias_ ? lease.at(in_bias_[v]) : Tensor());
  const kernels::Heads& heads = heads_[v];
  const std::int64_t rows = qkv[0], queries = heads.query * heads.size, keys = heads.key_value * heads.size;
  const Tensor query = matrix_in(scratch.part, rows, queries);
  product(query, lease.at(shared_->query[v]), bias_ ? lease.at(shared_->query_bias[v]) : Tensor());
  kernels::copy_columns(qkv, 0, query, 0, queries, stream);
  for (int which = 0; which < 2; ++which) {
    const Tensor part = matrix_in(scratch.part, rows, keys);
    const std::int64_t first = heads.first_key_value * heads.size;
    product(part, lease.at(shared_->weight[which]).slice(first, keys),
            bias_ ? lease.at(shared_->bias[which]).slice(first, keys) : Tensor());
    kernels::copy_columns(qkv, queries + which * keys, part, 0, keys, stream);
  }
}

void AttentionLayer::forward(Tensor y, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Tensor rotary,
                             const Pass& pass, int layer) const {
  Stream& stream = pass.stream;
  const AdapterUse use{lease.adapter, scratch.adapter, stream, &pass};
  in_.begin(x, use);
  sum_over_shards(y, scratch.tree, stream, [&](int v, Tensor partial) {
    const kernels::Heads& heads = heads_[v];
    if (heads.query == 0) return partial.zero(stream);
    const Tensor qkv = rows_of(saved.qkv[v], x[0]), out = rows_of(saved.out[v], x[0]), lse = rows_of(saved.lse[v], x[0]);
    project(qkv, v, lease, scratch, stream,
            [&](Tensor part, Tensor weight, Tensor bias) { kernels::linear_forward(part, x, weight, bias, Write::replace, stream); });
    in_.forward(qkv, v, use);
    if (rotary_) kernels::rotary(qkv, pass.grain.positions, rotary, heads, false, stream);
    if (pass.cache)
      kernels::cache_write(pass.cache->keys[layer][v], pass.cache->values[layer][v], qkv, pass.grain.offsets, pass.slots, heads, stream);
    kernels::attention_forward(out, lse, qkv, pass.grain.offsets, heads, stream);
    kernels::linear_forward(partial, out, lease.at(out_weight_[v]), {}, Write::replace, stream);
    out_.begin(out, v, use);
  });
  if (out_bias_) kernels::add_bias(y, lease.at(*out_bias_), stream);
  out_.forward(y, use);
}

void AttentionLayer::recompute_inner(Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Tensor rotary,
                                     const Pass& pass) const {
  const AdapterUse use{lease.adapter, scratch.adapter, pass.stream, &pass};
  in_.begin(x, use);
  for (int v = 0; v < static_cast<int>(heads_.size()); ++v) {
    if (heads_[v].query == 0) continue;
    const Tensor qkv = rows_of(saved.qkv[v], x[0]);
    project(qkv, v, lease, scratch, pass.stream,
            [&](Tensor part, Tensor weight, Tensor bias) { kernels::linear_forward(part, x, weight, bias, Write::replace, pass.stream); });
    in_.forward(qkv, v, use);
    if (rotary_) kernels::rotary(qkv, pass.grain.positions, rotary, heads_[v], false, pass.stream);
  }
}

// dO = dy Wo; (dq, dk, dv) = attention'(dO); dx = sum over shards of dqkv Wqkv; dWo = dy^T O; dWqkv = dqkv^T x
void AttentionLayer::backward(Tensor dx, Tensor dy, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch,
                              Tensor rotary, const Pass& pass) const {
  Stream& stream = pass.stream;
  const std::int64_t rows = x[0];
  const AdapterUse use{lease.adapter, scratch.adapter, stream, &pass};
  for (int v = 0; v < static_cast<int>(heads_.size()); ++v) out_.begin(rows_of(saved.out[v], rows), v, use);
  out_.begin_backward(dy, use);
  in_.begin(x, use);
  if (out_bias_) backward_bias(lease, *out_bias_, dy, stream);
  sum_over_shards(dx, scratch.tree, stream, [&](int v, Tensor partial) {
    const kernels::Heads& heads = heads_[v];
    if (heads.query == 0) return partial.zero(stream);
    const Tensor qkv = rows_of(saved.qkv[v], rows), out = rows_of(saved.out[v], rows), lse = rows_of(saved.lse[v], rows);
    const Tensor dout = matrix_in(scratch.narrow, rows, out[1]), dqkv = matrix_in(scratch.wide, rows, qkv[1]);
    const Tensor delta = matrix_in(scratch.delta, rows, heads.query);
    backward_weight(lease, out_weight_[v], dy, out, stream);
    kernels::linear_backward_input(dout, dy, lease.at(out_weight_[v]), Write::replace, stream);
    out_.backward(dout, out, v, use);
    kernels::attention_backward(dqkv, dout, out, lse, qkv, pass.grain.offsets, delta, heads, stream);
    if (rotary_) kernels::rotary(dqkv, pass.grain.positions, rotary, heads, true, stream);
    in_.backward(dqkv, v, use);
    if (shared_) return backward_shared(partial, v, dqkv, x, lease, scratch, stream);
    backward_weight(lease, in_weight_[v], dqkv, x, stream);
    if (bias_) backward_bias(lease, in_bias_[v], dqkv, stream);
    kernels::linear_backward_input(partial, dqkv, lease.at(in_weight_[v]), Write::replace, stream);
  });
  if (shared_ && lease.gradient) reduce_shared(x, lease, scratch, stream);
  in_.finish_backward(dx, x, use);
}

Tensor AttentionLayer::dkey_value(int v, int which, std::int64_t rows, const Scratch& scratch) const {
  const std::int64_t keys = heads_[v].key_value * heads_[v].size;
  return scratch.dkey_value[v].slice(which * rows * keys, rows * keys).reshape({rows, keys});
}

/// dx of shard v = dq Wq + dk Wk + dv Wv, in this order; dk and dv are kept for reduce_shared.
void AttentionLayer::backward_shared(Tensor partial, int v, Tensor dqkv, Tensor x, const Lease& lease, const Scratch& scratch,
                                     Stream& stream) const {
  const kernels::Heads& heads = heads_[v];
  const std::int64_t rows = x[0], queries = heads.query * heads.size, keys = heads.key_value * heads.size;
  const Tensor dquery = matrix_in(scratch.part, rows, queries);
  kernels::copy_columns(dquery, 0, dqkv, 0, queries, stream);
  backward_weight(lease, shared_->query[v], dquery, x, stream);
  if (bias_) backward_bias(lease, shared_->query_bias[v], dquery, stream);
  kernels::linear_backward_input(partial, dquery, lease.at(shared_->query[v]), Write::replace, stream);
  for (int which = 0; which < 2; ++which) {
    const Tensor part = dkey_value(v, which, rows, scratch);
    kernels::copy_columns(part, 0, dqkv, queries + which * keys, keys, stream);
    kernels::linear_backward_input(partial, part, lease.at(shared_->weight[which]).slice(heads.first_key_value * heads.size, keys),
                                   Write::add, stream);
  }
}

/// The gradients of key and value weights, which several shards read: a sum over the shards (numerics contract R2).
void AttentionLayer::reduce_shared(Tensor x, const Lease& lease, const Scratch& scratch, Stream& stream) const {
  const auto rows_of_shard = [&](Tensor gradient, int v) {
    return gradient.slice(heads_[v].first_key_value * heads_[v].size, heads_[v].key_value * heads_[v].size);
  };
  for (int which = 0; which < 2; ++which) {
    sum_over_shards(lease.gradient_at(shared_->weight[which]), scratch.key_value, stream, [&](int v, Tensor partial) {
      partial.zero(stream);
      if (heads_[v].query)
        kernels::linear_backward_weight(rows_of_shard(partial, v), dkey_value(v, which, x[0], scratch), x, Write::replace, stream);
    });
    if (!bias_) continue;
    ShardTree tree = scratch.key_value;  // biases are vectors: they fit into the matrices' room
    for (Tensor& room : tree.room) room = room.reshape({room.count()});
    sum_over_shards(lease.gradient_at(shared_->bias[which]), tree, stream, [&](int v, Tensor partial) {
      partial.zero(stream);
      if (heads_[v].query)
        kernels::linear_backward_bias(rows_of_shard(partial, v), dkey_value(v, which, x[0], scratch), Write::replace, stream);
    });
  }
}

void AttentionLayer::decode(Tensor y, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Tensor rotary,
                            const KvCache& cache, int layer, const kernels::Ragged& slots, const kernels::Ragged& positions,
                            Stream& stream) const {
  const AdapterUse use{lease.adapter, scratch.adapter, stream};
  in_.begin(x, use);
  sum_over_shards(y, scratch.tree, stream, [&](int v, Tensor partial) {
    const kernels::Heads& heads = heads_[v];
    if (heads.query == 0) return partial.zero(stream);
    const Tensor qkv = rows_of(saved.qkv[v], x[0]), out = rows_of(saved.out[v], x[0]);
    project(qkv, v, lease, scratch, stream,
            [&](Tensor part, Tensor weight, Tensor bias) { kernels::linear_decode(part, x, weight, bias, stream); });
    in_.forward(qkv, v, use);
    if (rotary_) kernels::rotary(qkv, positions, rotary, heads, false, stream);
    kernels::attention_decode(out, qkv, cache.keys[layer][v], cache.values[layer][v], slots, positions, heads, stream);
    kernels::linear_decode(partial, out, lease.at(out_weight_[v]), {}, stream);
    out_.begin(out, v, use);
  });
  if (out_bias_) kernels::add_bias(y, lease.at(*out_bias_), stream);
  out_.forward(y, use);
}

}  // namespace collimate
