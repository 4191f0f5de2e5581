#include "collimate/model/transformer.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "collimate/kernels/elementwise.hpp"

namespace collimate {
namespace {

const ModelConfig& checked(const ModelConfig& config, const Division& division, const LoraConfig& lora) {
  config.check();
  lora.check(config);
  require(division.shards >= 1 && std::has_single_bit(static_cast<unsigned>(division.shards)),
          "numerics.tensor_shards = {} is not a power of two", division.shards);
  const int tensor = division.ranks(Axis::tensor);
  require(
      division.shards % tensor == 0,
      "grid.tensor = {} does not divide numerics.tensor_shards = {}: a rank computes whole shards; set grid.tensor to a power of two of at "
      "most {}, or numerics.tensor_shards to a larger one (changing it changes results in the last bits)",
      tensor, division.shards, division.shards);
  return config;
}

void declare_value_head(const ModelConfig& config, ParameterLayout& layout) {
  layout.add("value_head.weight", {1, config.width}, true, {1 / std::sqrt(config.width + 1.0)});
  layout.add("value_head.bias", {1}, false, {});
}

/// Elements of a unit of a table of the vocabulary: whole thousands of rows that are together no larger than a block's section, but one at
/// least.
std::int64_t table_unit(const ModelConfig& config, int shards) {
  ParameterLayout block(shards);
  Block::declare(config, block, 0, Presence::yes);
  const std::vector<std::int64_t>& sections = block.chunks()[0].sections;
  std::int64_t section = 0;
  for (std::size_t s = 1; s < sections.size(); ++s) section = std::max(section, sections[s] - sections[s - 1]);
  return std::max<std::int64_t>(1, section / config.width / 1024) * 1024 * config.width;
}

double block_products(const ModelConfig& c) {
  const double heads = static_cast<double>(c.head_size) * static_cast<double>(2 * c.heads + 2 * c.kv_heads);
  return static_cast<double>(c.width) * (heads + static_cast<double>(c.mlp) * (c.activation == Activation::swiglu ? 3 : 2));
}

}  // namespace

Part stage_blocks(const ModelConfig& config, Head head, int stage, int stages) {
  require(stages <= config.layers, "grid.pipeline = {}, and a model has {} blocks: a stage needs at least one; use at most {} stages",
          stages, config.layers, config.layers);
  if (stages == 1) return {0, config.layers};
  // The head's products, in blocks; its backward needs no third product's recomputation, so the same factor holds.
  const double weight = head == Head::policy ? static_cast<double>(config.vocabulary * config.width) / block_products(config) : 0;
  std::int64_t last = 1;
  double best = -1;
  for (std::int64_t n = 1; n <= config.layers - (stages - 1); ++n) {
    const double others = std::ceil(static_cast<double>(config.layers - n) / (stages - 1));
    const double largest = std::max(others, static_cast<double>(n) + weight);
    if (best < 0 || largest <= best) {
      best = largest;
      last = n;
    }
  }
  if (stage == stages - 1) return {config.layers - last, last};
  return part_of(config.layers - last, stage, stages - 1);
}

ParameterLayout Transformer::make_layout(const ModelConfig& config, Head head, const Division& division, bool head_apart, int& head_chunk) {
  ParameterLayout layout(division.shards, division.held_shards());
  const bool first = division.first_stage(), last = division.last_stage(), tied = head == Head::policy && config.tied;
  const Part mine = stage_blocks(config, head, division.stage(), division.stages());
  const auto on = [](bool here) { return here ? Presence::yes : Presence::no; };
  const std::int64_t unit = table_unit(config, division.shards);
  Embedding::declare(config, layout, first ? Presence::yes : last && tied ? Presence::copy : Presence::no, on(first), unit);
  for (int i = 0; i < config.layers; ++i) Block::declare(config, layout, i, on(i >= mine.begin && i < mine.begin + mine.count));
  layout.open_chunk("final", on(last));
  NormLayer::declare(config, layout, "final_norm");
  layout.close_chunk();
  if (tied) {
    head_chunk = layout.tie(0, last);
    return layout;
  }
  if (head_apart) return layout;
  layout.open_chunk("head", on(last), head == Head::policy ? unit : 0);
  if (head == Head::policy)
    layout.add("head.weight", {config.vocabulary, config.width}, Split::rows, shard_bounds(config.vocabulary, division.shards), true, {0.02});
  else
    declare_value_head(config, layout);
  head_chunk = layout.close_chunk();
  return layout;
}

// Chunk i is that of block i, so that stages and ZeRO-3 treat it as they treat the block.
ParameterLayout Transformer::make_adapter_layout() {
  ParameterLayout layout(division_.shards, division_.held_shards());
  if (!lora_.on()) return layout;
  for (int i = 0; i < config_.layers; ++i) {
    const bool here = i >= mine_.begin && i < mine_.begin + mine_.count;
    layout.open_chunk("adapters." + std::to_string(i), here ? Presence::yes : Presence::no);
    declare_adapters(lora_, layout_, "block." + std::to_string(i), layout);
    layout.close_chunk();
  }
  if (!head_apart()) return layout;
  layout.open_chunk("head", division_.last_stage() ? Presence::yes : Presence::no);
  declare_value_head(config_, layout);
  head_chunk_ = layout.close_chunk();
  return layout;
}

Transformer::Transformer(const ModelConfig& config, Head head, const Division& division, MemoryPlan& plan, RecomputePlan recompute,
                         const LoraConfig& lora, std::int64_t longest)
    : config_(checked(config, division, lora)),
      head_(head),
      division_(division),
      recompute_(recompute),
      mine_(stage_blocks(config_, head, division.stage(), division.stages())),
      lora_(lora),
      layout_(make_layout(config_, head, division, head_apart(), head_chunk_)),
      adapter_layout_(make_adapter_layout()),
      embedding_(config_, layout_, division, plan, division.first_stage()),
      plan_(&plan),
      longest_(longest ? std::min(longest, config_.context) : config_.context) {
  for (std::int64_t i = 0; i < mine_.count; ++i)
    blocks_.emplace_back(config_, layout_, lora_, adapter_layout_, static_cast<int>(mine_.begin + i));
  if (division.last_stage()) final_norm_.emplace(config_, layout_, "final_norm");
  make_routes();
  if (config_.positions == Positions::rotary) rotary_ = plan.reserve("rotary table", Shape{longest_, config_.head_size}, DType::f32);
}

void Transformer::prepare(Stream& stream) const {
  if (!rotary_) return;
  const std::vector<double> frequencies = rope_frequencies(config_);
  constexpr std::int64_t most = 1024;
  std::vector<float> rows;
  for (std::int64_t first = 0; first < longest_; first += most) {
    const std::int64_t count = std::min(most, longest_ - first);
    rows.resize(static_cast<std::size_t>(count * config_.head_size));
    kernels::rotary_table(rows, first, frequencies);
    plan_->staging().put(rotary().slice(first, count), rows, stream);
  }
}

Tensor Transformer::rotary() const { return rotary_ ? plan_->at(rotary_, {longest_, config_.head_size}) : Tensor(); }

ShardTree Transformer::shard_tree() const {
  return {static_cast<int>(layout_.held().count), division_.ranks(Axis::tensor) > 1 ? &division_.along(Axis::tensor) : nullptr,
          division_.ordered};
}

Activations Transformer::take(Arena& arena, std::int64_t rows, Keep keep, const Activations* like) const {
  const bool all = keep == Keep::all;
  const Shape hidden{rows, config_.width};
  const auto block = [&](std::size_t i) { return recompute_.of(static_cast<int>(mine_.begin + static_cast<std::int64_t>(i))); };
  Activations a;
  const std::size_t count = all ? blocks_.size() : std::min<std::size_t>(1, blocks_.size());
  bool again = false;
  for (std::size_t i = 0; all && i < count; ++i) again |= block(i) != Recompute::none;
  if (like) {
    a.again = like->again;
    a.scratch = like->scratch;
  } else {
    if (again) a.again = blocks_[0].take(arena, rows);
    const ShardTree tree = shard_tree().with_exchange(arena, hidden.count());
    a.scratch.tree = a.scratch.key_value = tree;
    for (int v = 1; v < a.scratch.tree.shards; v *= 2) a.scratch.tree.room.push_back(arena.take(hidden));
    a.scratch.branch = arena.take(hidden);
    if (!blocks_.empty()) blocks_[0].attention().take_scratch(arena, rows, all, a.scratch);
    a.scratch.adapter =
        take_adapter_scratch(arena, rows, lora_, blocks_.empty() ? AdapterWidths{} : blocks_[0].adapter_widths(), tree, all);
    if (all) {
      const Block::Widths widths = blocks_.empty() ? Block::Widths{} : blocks_.front().widths();
      a.scratch.norm = arena.take(hidden);
      a.scratch.wide = arena.take({rows * widths.fused});
      a.scratch.narrow = arena.take({rows * widths.inner});
      a.scratch.delta = arena.take({rows * widths.heads});
      a.gradient = arena.take(hidden);
    }
  }
  for (std::size_t i = 0; i < count; ++i) a.blocks.push_back(blocks_[i].take(arena, rows, all ? block(i) : Recompute::none, a.again));
  for (std::size_t i = 0; i <= count; ++i) a.x.push_back(arena.take(hidden));
  if (final_norm_) a.final_norm = final_norm_->take(arena, rows);
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
  a.scratch.tree = scratch.tree;
  a.scratch.tree.room = parts(scratch.tree.room);
  if (const std::int64_t all = x[0][0]; scratch.part) {
    const std::int64_t columns = scratch.part.count() / all;
    a.scratch.part = scratch.part.slice(begin * columns, count * columns);
  }
  a.scratch.branch = part(scratch.branch);
  a.scratch.adapter = scratch.adapter.rows(begin, count, x[0][0]);
  return a;
}

void Transformer::make_routes() {
  const auto block = [&](Route& route, std::size_t i) {
    route.own.push_back(block_unit(i));
    if (lora_.on()) route.adapters.push_back(adapter_unit(i));
  };
  forward_.own = embedding_.route();
  for (std::size_t i = 0; i < blocks_.size(); ++i) block(forward_, i);
  for (Route* route : {&forward_, &backward_})
    if (final_norm_) route->own.push_back(unit(final_chunk()));
  for (std::size_t i = blocks_.size(); i-- > 0;) block(backward_, i);
}

BlockLease Transformer::fetch_block(const ModelWeights& weights, std::size_t i) const {
  return {weights.own.fetch(block_unit(i)), weights.adapters ? weights.adapters->fetch(adapter_unit(i)) : Lease()};
}

Tensor Transformer::output(const Activations& a, std::int64_t rows) const {
  if (final_norm_) return a.final_norm.y.slice(0, rows);
  return a.x[a.blocks.size() == blocks_.size() ? blocks_.size() : blocks_.size() % 2].slice(0, rows);
}

std::vector<Embedding::Rows> Transformer::embedded(std::span<const Grain> group, bool gradients) const {
  std::vector<Embedding::Rows> rows;
  for (const Grain& grain : group) {
    const Activations& a = grain.activations;
    const GrainView& view = grain.pass.grain;
    rows.push_back({(gradients ? a.gradient : a.x[0]).slice(0, view.rows()), view.tokens, view.positions});
  }
  return rows;
}

/// Dropout of the embedding's rows, in place.
void Transformer::drop(const Embedding::Rows& rows, const Pass& pass) const {
  if (pass.dropout > 0 && rows.x[0])
    kernels::dropout(rows.x, rows.x, pass.dropout, pass.key, pass.grain.samples, pass.grain.positions.device, 0, pass.stream);
}

void Transformer::forward(std::span<const Grain> group, const ModelWeights& weights) const {
  if (group.empty()) return;
  Stream& stream = group.front().pass.stream;
  if (division_.first_stage()) {
    const std::vector<Embedding::Rows> rows = embedded(group, false);
    embedding_.forward(rows, weights.own, group.front().activations.scratch.tree, stream);
    for (std::size_t g = 0; g < group.size(); ++g) drop(rows[g], group[g].pass);
  }
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const BlockLease lease = fetch_block(weights, i);
    for (const auto& [a, pass, dhidden] : group) {
      const std::int64_t rows = pass.grain.rows();
      const bool all = a.blocks.size() == blocks_.size();
      const auto x = [&](std::size_t block) { return a.x[all ? block : block % 2].slice(0, rows); };
      if (rows) blocks_[i].forward(x(i + 1), x(i), a.blocks[all ? i : 0], lease, a.scratch, rotary(), pass);
    }
  }
  if (!final_norm_) return;
  const Lease lease = weights.own.fetch(unit(final_chunk()));
  for (const auto& [a, pass, dhidden] : group) {
    const bool all = a.blocks.size() == blocks_.size();
    const Tensor x = a.x[all ? blocks_.size() : blocks_.size() % 2].slice(0, pass.grain.rows());
    if (x[0]) final_norm_->forward(a.final_norm, x, lease, stream);
  }
}

void Transformer::backward(std::span<const Grain> group, const ModelWeights& weights) const {
  if (group.empty()) return;
  Stream& stream = group.front().pass.stream;
  if (final_norm_) {
    const int u = unit(final_chunk());
    Lease lease = weights.own.fetch(u);
    for (const auto& [a, pass, dhidden] : group) {
      const std::int64_t rows = pass.grain.rows();
      if (rows) {
        const Tensor gradient = a.gradient.slice(0, rows);
        lease.gradient = weights.own.gradient(u).gradient;
        gradient.zero(stream);
        final_norm_->backward(gradient, dhidden, a.x.back().slice(0, rows), a.final_norm, lease, stream);
      }
      weights.own.reduce(u);
    }
  }
  for (std::size_t i = blocks_.size(); i-- > 0;) {
    BlockLease lease = fetch_block(weights, i);
    const Recompute again = recompute_.of(static_cast<int>(mine_.begin + static_cast<std::int64_t>(i)));
    for (const auto& [a, pass, dhidden] : group) {
      if (const std::int64_t rows = pass.grain.rows()) {
        const Tensor x = a.x[i].slice(0, rows);
        lease.gradient = weights.own.gradient(block_unit(i)).gradient;
        if (weights.adapters) lease.adapter.gradient = weights.adapters->gradient(adapter_unit(i)).gradient;
        blocks_[i].recompute(again, x, a.blocks[i], lease, a.scratch, rotary(), pass);
        blocks_[i].backward(a.gradient.slice(0, rows), x, a.blocks[i], lease, a.scratch, rotary(), pass);
      }
      weights.own.reduce(block_unit(i));
      if (weights.adapters) weights.adapters->reduce(adapter_unit(i));
    }
  }
  if (!division_.first_stage() || !weights.own.learns()) return;
  const std::vector<Embedding::Rows> rows = embedded(group, true);
  for (std::size_t g = 0; g < group.size(); ++g) drop(rows[g], group[g].pass);
  embedding_.backward(rows, weights.own, stream);
}

Tensor Transformer::decode(const Activations& a, const ModelWeights& weights, const KvCache& cache, const kernels::Ragged& tokens,
                           const kernels::Ragged& slots, const kernels::Ragged& positions, Stream& stream) const {
  const std::int64_t rows = tokens.count();
  const Embedding::Rows first{a.x[0].slice(0, rows), tokens, positions};
  if (division_.first_stage()) embedding_.forward({&first, 1}, weights.own, a.scratch.tree, stream);
  for (std::size_t i = 0; i < blocks_.size(); ++i)
    blocks_[i].decode(a.x[(i + 1) % 2].slice(0, rows), a.x[i % 2].slice(0, rows), a.blocks[0], fetch_block(weights, i), a.scratch,
                      rotary(), cache, slots, positions, stream);
  const Tensor out = a.x[blocks_.size() % 2].slice(0, rows);
  if (!final_norm_) return out;
  final_norm_->forward(a.final_norm, out, weights.own.fetch(unit(final_chunk())), stream);
  return a.final_norm.y.slice(0, rows);
}

KvCache Transformer::take_cache(Arena& arena, std::int64_t slots, std::int64_t capacity) const {
  KvCache cache;
  cache.keys.resize(config_.layers);
  cache.values.resize(config_.layers);
  for (std::size_t i = 0; i < blocks_.size(); ++i)
    for (const kernels::Heads& heads : blocks_[i].attention().heads()) {
      const Shape shape{slots, capacity, heads.key_value * heads.size};
      cache.keys[mine_.begin + static_cast<std::int64_t>(i)].push_back(arena.take(shape));
      cache.values[mine_.begin + static_cast<std::int64_t>(i)].push_back(arena.take(shape));
    }
  return cache;
}

}  // namespace collimate
