#include "collimate/model/transformer.hpp"

#include <bit>
#include <cmath>

#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/embedding.hpp"

namespace collimate {
namespace {

const ModelConfig& checked(const ModelConfig& config, int shards) {
  config.check();
  require(shards >= 1 && std::has_single_bit(static_cast<unsigned>(shards)), "numerics.tensor_shards = {} is not a power of two", shards);
  return config;
}

}  // namespace

ParameterLayout Transformer::make_layout(const ModelConfig& config, Head head, int shards, int& head_chunk) {
  ParameterLayout layout(shards);
  const auto rows = shard_bounds(config.vocabulary, shards);
  const Shape table{config.vocabulary, config.width};
  layout.open_chunk("embedding");
  layout.add("embedding.weight", table, Split::rows, rows, true, {0.02});
  layout.close_chunk();
  if (config.positions == Positions::learned) {
    layout.open_chunk("position");
    layout.add("position.weight", {config.context, config.width}, true, {0.02});
    layout.close_chunk();
  }
  for (int i = 0; i < config.layers; ++i) Block::declare(config, layout, i);
  layout.open_chunk("final");
  NormLayer::declare(config, layout, "final_norm");
  layout.close_chunk();
  if (head == Head::policy && config.tied) {
    head_chunk = layout.tie(0);
    return layout;
  }
  layout.open_chunk("head");
  if (head == Head::policy) {
    layout.add("head.weight", table, Split::rows, rows, true, {0.02});
  } else {
    layout.add("value_head.weight", {1, config.width}, true, {1 / std::sqrt(config.width + 1.0)});
    layout.add("value_head.bias", {1}, false, {});
  }
  head_chunk = layout.close_chunk();
  return layout;
}

Transformer::Transformer(const ModelConfig& config, Head head, int shards, MemoryPlan& plan)
    : config_(checked(config, shards)),
      head_(head),
      layout_(make_layout(config_, head, shards, head_chunk_)),
      plan_(&plan),
      final_norm_(config_, layout_, "final_norm") {
  for (int i = 0; i < config_.layers; ++i) blocks_.emplace_back(config_, layout_, i);
  if (config_.positions == Positions::rotary) rotary_ = plan.reserve("rotary table", Shape{config_.context, config_.head_size}, DType::f32);
}

void Transformer::prepare(Stream& stream) const {
  if (rotary_) kernels::rotary_table(rotary(), config_.rope_theta, stream);
}

Tensor Transformer::rotary() const { return rotary_ ? plan_->at(rotary_, {config_.context, config_.head_size}) : Tensor(); }

Activations Transformer::take(Arena& arena, std::int64_t rows, Keep keep) const {
  const bool all = keep == Keep::all;
  const Shape hidden{rows, config_.width};
  Activations a;
  const std::size_t count = all ? blocks_.size() : std::min<std::size_t>(1, blocks_.size());
  for (std::size_t i = 0; i < count; ++i) a.blocks.push_back(blocks_[i].take(arena, rows));
  for (std::size_t i = 0; i <= count; ++i) a.x.push_back(arena.take(hidden));
  a.final_norm = final_norm_.take(arena, rows);
  for (int v = 1; v < layout_.shards(); v *= 2) a.scratch.tree.push_back(arena.take(hidden));
  a.scratch.branch = arena.take(hidden);
  if (!all || blocks_.empty()) return a;
  const Block::Widths widths = blocks_.front().widths();
  a.scratch.norm = arena.take(hidden);
  a.scratch.wide = arena.take({rows * widths.fused});
  a.scratch.narrow = arena.take({rows * widths.inner});
  a.scratch.delta = arena.take({rows * widths.heads});
  a.gradient = arena.take(hidden);
  return a;
}

Activations Activations::rows(std::int64_t begin, std::int64_t count) const {
  const auto part = [&](const Tensor& t) { return t ? t.slice(begin, count) : Tensor(); };
  const auto parts = [&](const std::vector<Tensor>& tensors) {
    std::vector<Tensor> sliced;
    for (const Tensor& t : tensors) sliced.push_back(part(t));
    return sliced;
  };
  const auto norm = [&](const NormSaved& n) { return NormSaved{part(n.y), part(n.mean), part(n.rstd)}; };
  Activations a;
  a.x = parts(x);
  for (const Block::Saved& b : blocks)
    a.blocks.push_back({norm(b.norm1),
                        norm(b.norm2),
                        {parts(b.attention.qkv), parts(b.attention.out), parts(b.attention.lse)},
                        {parts(b.mlp.up), parts(b.mlp.inner)},
                        part(b.mid)});
  a.final_norm = norm(final_norm);
  a.scratch.tree = parts(scratch.tree);
  a.scratch.branch = part(scratch.branch);
  return a;
}

Tensor Transformer::forward(const Activations& a, const ParameterStore& store, const Pass& pass) const {
  Stream& stream = pass.stream;
  const std::int64_t rows = pass.grain.rows();
  const bool all = a.blocks.size() == blocks_.size();
  const auto input = [&](std::size_t i) { return a.x[all ? i : i % 2].slice(0, rows); };
  embed(input(0), store, pass.grain.tokens, pass.grain.positions, stream);
  if (pass.dropout > 0) kernels::dropout(input(0), input(0), pass.dropout, pass.key, pass.grain.samples, pass.grain.positions, 0, stream);
  for (std::size_t i = 0; i < blocks_.size(); ++i)
    blocks_[i].forward(input(i + 1), input(i), a.blocks[all ? i : 0], store.fetch(first_block() + static_cast<int>(i)), a.scratch, rotary(),
                       pass);
  final_norm_.forward(a.final_norm, input(blocks_.size()), store.fetch(final_chunk()), stream);
  return a.final_norm.y.slice(0, rows);
}

void Transformer::backward(Tensor dhidden, const Activations& a, const ParameterStore& store, const Pass& pass) const {
  Stream& stream = pass.stream;
  const std::int64_t rows = pass.grain.rows();
  const Tensor gradient = a.gradient.slice(0, rows);
  gradient.zero(stream);
  final_norm_.backward(gradient, dhidden, a.x.back().slice(0, rows), a.final_norm, store.fetch(final_chunk()), stream);
  for (std::size_t i = blocks_.size(); i-- > 0;)
    blocks_[i].backward(gradient, a.x[i].slice(0, rows), a.blocks[i], store.fetch(first_block() + static_cast<int>(i)), a.scratch, rotary(),
                        pass);
  if (pass.dropout > 0) kernels::dropout(gradient, gradient, pass.dropout, pass.key, pass.grain.samples, pass.grain.positions, 0, stream);
  const Lease embedding = store.fetch(0);
  const Parameter& table = layout_.parameter("embedding.weight");
  for (int v = 0; v < layout_.shards(); ++v)
    kernels::embedding_backward(embedding.gradient_at(table.parts[v]), gradient, pass.grain.tokens, table.bounds[v], stream);
  if (config_.positions != Positions::learned) return;
  const Lease positions = store.fetch(1);
  kernels::embedding_backward(positions.gradient_at(layout_.view("position.weight")), gradient, pass.grain.positions, 0, stream);
}

void Transformer::embed(Tensor x, const ParameterStore& store, Tensor tokens, Tensor positions, Stream& stream) const {
  const Lease embedding = store.fetch(0);
  const Parameter& table = layout_.parameter("embedding.weight");
  x.zero(stream);
  for (int v = 0; v < layout_.shards(); ++v) kernels::embedding_forward(x, embedding.at(table.parts[v]), tokens, table.bounds[v], stream);
  if (config_.positions == Positions::learned)
    kernels::embedding_add(x, store.fetch(1).at(layout_.view("position.weight")), positions, stream);
}

Tensor Transformer::decode(const Activations& a, const ParameterStore& store, const KvCache& cache, Tensor tokens, Tensor slots,
                           Tensor positions, Stream& stream) const {
  const std::int64_t rows = tokens[0];
  embed(a.x[0].slice(0, rows), store, tokens, positions, stream);
  for (std::size_t i = 0; i < blocks_.size(); ++i)
    blocks_[i].decode(a.x[(i + 1) % 2].slice(0, rows), a.x[i % 2].slice(0, rows), a.blocks[0],
                      store.fetch(first_block() + static_cast<int>(i)), a.scratch, rotary(), cache, slots, positions, stream);
  final_norm_.forward(a.final_norm, a.x[blocks_.size() % 2].slice(0, rows), store.fetch(final_chunk()), stream);
  return a.final_norm.y.slice(0, rows);
}

KvCache Transformer::take_cache(Arena& arena, std::int64_t slots, std::int64_t capacity) const {
  KvCache cache;
  for (const Block& block : blocks_) {
    cache.keys.emplace_back();
    cache.values.emplace_back();
    for (const kernels::Heads& heads : block.attention().heads()) {
      const Shape shape{slots, capacity, heads.key_value * heads.size};
      cache.keys.back().push_back(arena.take(shape));
      cache.values.back().push_back(arena.take(shape));
    }
  }
  return cache;
}

}  // namespace collimate
