#include <algorithm>

#include "collimate/kernels/elementwise.hpp"
#include "collimate/model/transformer.hpp"

namespace collimate {
namespace {

std::string prefix(int index) { return "block." + std::to_string(index); }

// The places of dropout in the model: 0 is the embedding, then two per block.
std::uint32_t site(int block, int branch) { return static_cast<std::uint32_t>(1 + 2 * block + branch); }

void drop(Tensor x, std::uint32_t where, const Pass& pass) {
  if (pass.dropout > 0) kernels::dropout(x, x, pass.dropout, pass.key, pass.grain.samples, pass.grain.positions.device, where, pass.stream);
}

}  // namespace

void Block::declare(const ModelConfig& config, ParameterLayout& layout, int index, Presence presence) {
  layout.open_chunk(prefix(index), presence);
  NormLayer::declare(config, layout, prefix(index) + ".norm1");
  AttentionLayer::declare(config, layout, prefix(index));
  NormLayer::declare(config, layout, prefix(index) + ".norm2");
  MlpLayer::declare(config, layout, prefix(index));
  layout.close_chunk();
}

Block::Block(const ModelConfig& config, const ParameterLayout& layout, const LoraConfig& lora, const ParameterLayout& adapters, int index)
    : index_(index),
      norm1_(config, layout, prefix(index) + ".norm1"),
      norm2_(config, layout, prefix(index) + ".norm2"),
      attention_(config, layout, lora, adapters, index),
      mlp_(config, layout, lora, adapters, index) {}

Block::Widths Block::widths() const {
  Widths widths{mlp_.widest_up(), mlp_.widest_inner(), 0};
  for (const kernels::Heads& heads : attention_.heads()) {
    widths.fused = std::max(widths.fused, heads.columns());
    widths.inner = std::max(widths.inner, heads.query * heads.size);
    widths.heads = std::max(widths.heads, heads.query);
  }
  return widths;
}

AdapterWidths Block::adapter_widths() const {
  AdapterWidths all;
  for (const auto& layer : {attention_.adapter_widths(), mlp_.adapter_widths()})
    for (const AdapterWidths& widths : layer) {
      all.group = std::max(all.group, widths.group);
      all.widest = std::max(all.widest, widths.widest);
      all.shared = std::max(all.shared, widths.shared);
    }
  return all;
}

Block::Saved Block::take(Arena& arena, std::int64_t rows) const {
  Saved saved;
  saved.norm1 = norm1_.take(arena, rows);
  saved.norm2 = norm2_.take(arena, rows);
  saved.attention = attention_.take(arena, rows);
  saved.mlp = mlp_.take(arena, rows);
  saved.mid = arena.take(saved.norm1.y.shape());
  return saved;
}

Block::Saved Block::take(Arena& arena, std::int64_t rows, Recompute how, const Saved& shared) const {
  if (how == Recompute::full) return shared;
  if (how == Recompute::none) return take(arena, rows);
  Saved saved = shared;  // qkv and the inner rows of the MLP
  saved.norm1 = norm1_.take(arena, rows);
  saved.norm2 = norm2_.take(arena, rows);
  for (Tensor& out : saved.attention.out) out = arena.take(out.shape());
  for (Tensor& lse : saved.attention.lse) lse = arena.take(lse.shape());
  saved.mid = arena.take(saved.norm1.y.shape());
  return saved;
}

void Block::recompute(Recompute how, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Tensor rotary,
                      const Pass& pass) const {
  const std::int64_t rows = x[0];
  const Tensor mid = saved.mid.slice(0, rows), branch = scratch.branch.slice(0, rows);
  if (how == Recompute::none) return;
  if (how == Recompute::selective) {
    attention_.recompute_inner(saved.norm1.y.slice(0, rows), saved.attention, lease, scratch, rotary, pass);
  } else {
    norm1_.forward(saved.norm1, x, lease, pass.stream);
    attention_.forward(branch, saved.norm1.y.slice(0, rows), saved.attention, lease, scratch, rotary, pass, index_);
    drop(branch, site(index_, 0), pass);
    kernels::add(mid, x, branch, pass.stream);
    norm2_.forward(saved.norm2, mid, lease, pass.stream);
  }
  mlp_.recompute_inner(saved.norm2.y.slice(0, rows), saved.mlp, lease, scratch, pass);
}

void Block::forward(Tensor y, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Tensor rotary,
                    const Pass& pass) const {
  Stream& stream = pass.stream;
  const std::int64_t rows = x[0];
  const Tensor mid = saved.mid.slice(0, rows), branch = scratch.branch.slice(0, rows);
  norm1_.forward(saved.norm1, x, lease, stream);
  attention_.forward(branch, saved.norm1.y.slice(0, rows), saved.attention, lease, scratch, rotary, pass, index_);
  drop(branch, site(index_, 0), pass);
  kernels::add(mid, x, branch, stream);
  norm2_.forward(saved.norm2, mid, lease, stream);
  mlp_.forward(branch, saved.norm2.y.slice(0, rows), saved.mlp, lease, scratch, pass);
  drop(branch, site(index_, 1), pass);
  kernels::add(y, mid, branch, stream);
}

// dmid = dy + norm2'(mlp'(drop(dy))); dx = dmid + norm1'(attention'(drop(dmid)))
void Block::backward(Tensor dy_dx, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Tensor rotary,
                     const Pass& pass) const {
  Stream& stream = pass.stream;
  const std::int64_t rows = x[0];
  const Tensor mid = saved.mid.slice(0, rows), branch = scratch.branch.slice(0, rows), dnorm = scratch.norm.slice(0, rows);
  const auto dropped = [&](std::uint32_t where) {
    if (pass.dropout <= 0) return dy_dx;
    kernels::dropout(branch, dy_dx, pass.dropout, pass.key, pass.grain.samples, pass.grain.positions.device, where, stream);
    return branch;
  };
  mlp_.backward(dnorm, dropped(site(index_, 1)), saved.norm2.y.slice(0, rows), saved.mlp, lease, scratch, pass);
  norm2_.backward(dy_dx, dnorm, mid, saved.norm2, lease, stream);
  attention_.backward(dnorm, dropped(site(index_, 0)), saved.norm1.y.slice(0, rows), saved.attention, lease, scratch, rotary, pass);
  norm1_.backward(dy_dx, dnorm, x, saved.norm1, lease, stream);
}

void Block::decode(Tensor y, Tensor x, const Saved& saved, const BlockLease& lease, const Scratch& scratch, Tensor rotary,
                   const KvCache& cache, const kernels::Ragged& slots, const kernels::Ragged& positions, Stream& stream) const {
  const std::int64_t rows = x[0];
  const Tensor mid = saved.mid.slice(0, rows), branch = scratch.branch.slice(0, rows);
  norm1_.forward(saved.norm1, x, lease, stream);
  attention_.decode(branch, saved.norm1.y.slice(0, rows), saved.attention, lease, scratch, rotary, cache, index_, slots, positions, stream);
  kernels::add(mid, x, branch, stream);
  norm2_.forward(saved.norm2, mid, lease, stream);
  mlp_.decode(branch, saved.norm2.y.slice(0, rows), saved.mlp, lease, scratch, stream);
  kernels::add(y, mid, branch, stream);
}

}  // namespace collimate
