#include "collimate/model/heads.hpp"

#include <algorithm>

#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/embedding.hpp"
#include "collimate/kernels/head.hpp"
#include "collimate/kernels/matmul.hpp"
#include "collimate/kernels/rows.hpp"

namespace collimate {

PolicyHead::PolicyHead(const Transformer& model) : width_(model.config().width), tree_(model.shard_tree()) {
  const Parameter& table = model.layout().parameter(model.config().tied ? "embedding.weight" : "head.weight");
  const Part held = model.layout().held();
  all_bounds_ = table.bounds;
  bounds_.assign(table.bounds.begin() + held.begin, table.bounds.begin() + held.begin + held.count + 1);
  weight_.assign(table.parts.begin() + held.begin, table.parts.begin() + held.begin + held.count);
}

PolicyHead::Buffers PolicyHead::take(Arena& arena, Transformer::Keep keep) const {
  constexpr std::int64_t rows = kernels::row_block;
  Buffers b;
  for (const View& weight : weight_) b.logits.push_back(arena.take({rows, weight.shape[0]}));
  b.statistics.push_back(arena.take({rows, 4}));
  for (std::size_t v = 1; v < weight_.size(); v *= 2) b.statistics.push_back(arena.take({rows, 4}));
  if (tree_.shared()) b.all_statistics = arena.take({tree_.ranks->size() * rows * 4});
  b.hidden = arena.take({rows, width_});
  b.rows = arena.take({rows}, DType::i32);
  b.targets = arena.take({rows}, DType::i32);
  b.logprob = arena.take({rows});
  b.entropy = arena.take({rows});
  b.lse = arena.take({rows});
  if (keep == Transformer::Keep::all) {
    b.tree = tree_.with_exchange(arena, rows * width_);
    for (std::size_t v = 1; v < weight_.size(); v *= 2) b.tree.room.push_back(arena.take({rows, width_}));
    b.dhidden = arena.take({rows, width_});
    b.dlogprob = arena.take({rows});
    b.dentropy = arena.take({rows});
  }
  for (auto& host : b.host) host.resize(rows);
  return b;
}

std::vector<PolicyHead::RowBlock> PolicyHead::blocks(std::span<const std::int32_t> targets) const {
  std::vector<RowBlock> out;
  for (std::size_t row = 0; row < targets.size(); ++row) {
    if (targets[row] < 0) continue;
    if (out.empty() || out.back().count == kernels::row_block) out.emplace_back();
    out.back().rows.push_back(static_cast<std::int32_t>(row));
    ++out.back().count;
  }
  for (RowBlock& block : out) block.rows.resize(static_cast<std::size_t>(kernels::padded_rows(block.count)), -1);
  return out;
}

/// b.hidden, b.rows and b.targets of a block; padding rows are zeros without a target.
void PolicyHead::gather(const RowBlock& block, Tensor hidden, std::span<const std::int32_t> targets, Buffers& b, Stream& stream) const {
  const auto rows = static_cast<std::int64_t>(block.rows.size());
  std::vector<std::int32_t> wanted;
  for (const std::int32_t row : block.rows) wanted.push_back(row < 0 ? -1 : targets[row]);
  hidden.device().copy(b.rows.data(), block.rows.data(), block.rows.size() * sizeof(std::int32_t), stream);
  hidden.device().copy(b.targets.data(), wanted.data(), wanted.size() * sizeof(std::int32_t), stream);
  const Tensor x = b.hidden.slice(0, rows);
  x.zero(stream);
  kernels::embedding_forward(x, hidden, b.rows.slice(0, rows), 0, stream);
}

void PolicyHead::merge(int first, int shards, std::size_t depth, std::int64_t rows, float temperature, Buffers& b, Stream& stream) const {
  const Tensor statistics = b.statistics[depth].slice(0, rows);
  if (shards == 1)
    return kernels::logit_statistics(statistics, b.logits[first].slice(0, rows), b.targets.slice(0, rows), bounds_[first], temperature,
                                     stream);
  merge(first, shards / 2, depth, rows, temperature, b, stream);
  merge(first + shards / 2, shards / 2, depth + 1, rows, temperature, b, stream);
  kernels::merge_statistics(statistics, b.statistics[depth + 1].slice(0, rows), stream);
}

/// The upper levels of the same tree: every rank gets the others' four numbers per row and merges alike.
void PolicyHead::merge_ranks(std::int64_t rows, Buffers& b, Stream& stream) const {
  if (!tree_.shared()) return;
  const int ranks = tree_.ranks->size();
  const Tensor mine = b.statistics[0].slice(0, rows), all = b.all_statistics.slice(0, ranks * rows * 4);
  tree_.ranks->all_gather(all, mine.reshape({rows * 4}), stream);
  const auto of = [&](int rank) { return all.slice(rank * rows * 4, rows * 4).reshape({rows, 4}); };
  for (int distance = 1; distance < ranks; distance *= 2)
    for (int rank = 0; rank + distance < ranks; rank += 2 * distance) kernels::merge_statistics(of(rank), of(rank + distance), stream);
  mine.device().copy(mine.data(), of(0).data(), mine.bytes(), stream);
}

void PolicyHead::block_statistics(std::int64_t rows, float temperature, Buffers& b, const Lease& lease, Stream& stream) const {
  for (std::size_t v = 0; v < weight_.size(); ++v)
    if (weight_[v].shape[0])
      kernels::linear_forward(b.logits[v].slice(0, rows), b.hidden.slice(0, rows), lease.at(weight_[v]), {}, kernels::Write::replace,
                              stream);
  merge(0, static_cast<int>(weight_.size()), 0, rows, temperature, b, stream);
  merge_ranks(rows, b, stream);
  kernels::finish_statistics(b.logprob.slice(0, rows), b.entropy.slice(0, rows), b.lse.slice(0, rows), b.statistics[0].slice(0, rows),
                             b.targets.slice(0, rows), stream);
}

void PolicyHead::score(Tensor hidden, std::span<const std::int32_t> targets, float temperature, Buffers& b, const Lease& lease,
                       Stream& stream, std::span<float> logprob, std::span<float> entropy) const {
  std::fill(logprob.begin(), logprob.end(), 0.0f);
  std::fill(entropy.begin(), entropy.end(), 0.0f);
  for (const RowBlock& block : blocks(targets)) {
    gather(block, hidden, targets, b, stream);
    block_statistics(static_cast<std::int64_t>(block.rows.size()), temperature, b, lease, stream);
    hidden.device().copy(b.host[0].data(), b.logprob.data(), block.count * sizeof(float), stream);
    hidden.device().copy(b.host[1].data(), b.entropy.data(), block.count * sizeof(float), stream);
    stream.wait();
    for (std::int64_t i = 0; i < block.count; ++i) {
      logprob[block.rows[i]] = b.host[0][i];
      entropy[block.rows[i]] = b.host[1][i];
    }
  }
}

// dlogits = loss gradient through log-softmax; dhidden = sum over shards of dlogits_v W_v; dW_v = dlogits_v^T hidden, block after block.
void PolicyHead::forward_backward(Tensor dhidden, Tensor hidden, std::span<const std::int32_t> targets, float temperature, Buffers& b,
                                  const Lease& lease, Stream& stream, const TokenLoss& loss) const {
  Device& device = hidden.device();
  dhidden.zero(stream);
  bool first = true;
  for (const RowBlock& block : blocks(targets)) {
    const auto rows = static_cast<std::int64_t>(block.rows.size());
    gather(block, hidden, targets, b, stream);
    block_statistics(rows, temperature, b, lease, stream);
    device.copy(b.host[0].data(), b.logprob.data(), rows * sizeof(float), stream);
    device.copy(b.host[1].data(), b.entropy.data(), rows * sizeof(float), stream);
    stream.wait();
    for (int i : {2, 3}) std::fill_n(b.host[i].begin(), rows, 0.0f);
    for (std::int64_t begin = 0, end = 0; begin < block.count; begin = end) {  // runs of consecutive rows
      for (end = begin + 1; end < block.count && block.rows[end] == block.rows[end - 1] + 1;) ++end;
      const auto run = [&](int i) { return std::span(b.host[i]).subspan(begin, end - begin); };
      loss(block.rows[begin], run(0), run(1), run(2), run(3));
    }
    device.copy(b.dlogprob.data(), b.host[2].data(), rows * sizeof(float), stream);
    device.copy(b.dentropy.data(), b.host[3].data(), rows * sizeof(float), stream);
    const Tensor x = b.hidden.slice(0, rows), dx = b.dhidden.slice(0, rows);
    sum_over_shards(dx, b.tree, stream, [&](int v, Tensor partial) {
      if (weight_[v].shape[0] == 0) return partial.zero(stream);
      const Tensor logits = b.logits[v].slice(0, rows);
      kernels::logit_gradient(logits, b.lse.slice(0, rows), b.entropy.slice(0, rows), b.targets.slice(0, rows), b.dlogprob.slice(0, rows),
                              b.dentropy.slice(0, rows), bounds_[v], temperature, stream);
      if (lease.gradient)
        kernels::linear_backward_weight(lease.gradient_at(weight_[v]), logits, x, first ? kernels::Write::replace : kernels::Write::add,
                                        stream);
      kernels::linear_backward_input(partial, logits, lease.at(weight_[v]), kernels::Write::replace, stream);
    });
    kernels::embedding_backward(dhidden, dx, b.rows.slice(0, rows), 0, stream);
    first = false;
  }
}

void PolicyHead::logits(Tensor hidden, Buffers& b, const Lease& lease, Stream& stream, std::span<float> out) const {
  ensure(!tree_.shared(), "logits are whole on one rank only");
  const std::int64_t vocabulary = all_bounds_.back();
  for (std::int64_t row = 0; row < hidden[0]; row += kernels::row_block) {
    const std::int64_t rows = std::min(kernels::row_block, hidden[0] - row);
    for (std::size_t v = 0; v < weight_.size(); ++v) {
      const std::int64_t columns = weight_[v].shape[0];
      if (columns == 0) continue;
      const Tensor part = b.logits[v].slice(0, rows);
      kernels::linear_forward(part, hidden.slice(row, rows), lease.at(weight_[v]), {}, kernels::Write::replace, stream);
      for (std::int64_t r = 0; r < rows; ++r)
        hidden.device().copy(out.data() + (row + r) * vocabulary + bounds_[v], part.as<float>() + r * columns, columns * sizeof(float),
                             stream);
    }
  }
  stream.wait();
}

std::int64_t PolicyHead::decode_scratch(std::int64_t rows) const {
  if (weight_.size() == 1 && !tree_.shared()) return 0;
  return rows * (tree_.shared() ? 3 : 1) * all_bounds_.back();
}

void PolicyHead::decode(Tensor logits, Tensor hidden, Tensor scratch, const Lease& lease, Stream& stream) const {
  if (weight_.size() == 1 && !tree_.shared()) return kernels::linear_decode(logits, hidden, lease.at(weight_[0]), {}, stream);
  const std::int64_t rows = hidden[0], first = bounds_.front(), mine = bounds_.back() - first;
  const auto room = [&](std::int64_t begin, std::int64_t columns) { return scratch.slice(begin, rows * columns).reshape({rows, columns}); };
  const Tensor own = tree_.shared() ? room(rows * all_bounds_.back(), mine) : logits;  // the columns of this rank's shards
  for (std::size_t v = 0; v < weight_.size(); ++v) {
    const std::int64_t columns = weight_[v].shape[0];
    if (columns == 0) continue;
    const Tensor part = room(0, columns);
    kernels::linear_decode(part, hidden, lease.at(weight_[v]), {}, stream);
    kernels::copy_columns(own, bounds_[v] - first, part, 0, columns, stream);
  }
  if (!tree_.shared()) return;
  const int ranks = tree_.ranks->size();
  const std::size_t per_rank = (all_bounds_.size() - 1) / static_cast<std::size_t>(ranks);
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < ranks; ++rank) counts.push_back(rows * (all_bounds_[(rank + 1) * per_rank] - all_bounds_[rank * per_rank]));
  const Tensor all = scratch.slice(2 * rows * all_bounds_.back(), rows * all_bounds_.back());
  tree_.ranks->all_gather(all, own.reshape({own.count()}), counts, stream);
  for (std::int64_t rank = 0, begin = 0; rank < ranks; begin += counts[rank++]) {
    const std::int64_t columns = counts[rank] / std::max<std::int64_t>(1, rows);
    if (columns)
      kernels::copy_columns(logits, all_bounds_[rank * per_rank], all.slice(begin, counts[rank]).reshape({rows, columns}), 0, columns,
                            stream);
  }
}

void ValueHead::forward(Tensor values, Tensor hidden, const Lease& lease, Stream& stream) const {
  kernels::value_forward(values, hidden, lease.at(weight_).reshape({hidden[1]}), lease.at(bias_), stream);
}

void ValueHead::backward(Tensor dhidden, Tensor dvalues, Tensor hidden, const Lease& lease, Stream& stream) const {
  kernels::value_backward(dhidden, lease.gradient_at(weight_).reshape({hidden[1]}), lease.gradient_at(bias_), dvalues, hidden,
                          lease.at(weight_).reshape({hidden[1]}), stream);
}

}  // namespace collimate
