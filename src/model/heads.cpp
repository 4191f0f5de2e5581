#include "collimate/model/heads.hpp"

#include <algorithm>

#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/embedding.hpp"
#include "collimate/kernels/head.hpp"
#include "collimate/kernels/matmul.hpp"
#include "collimate/kernels/rows.hpp"

namespace collimate {

PolicyHead::PolicyHead(const Transformer& model)
    : width_(model.config().width), tree_(model.shard_tree()), staging_(&model.plan().staging()) {
  const Parameter& table = model.layout().parameter(model.config().tied ? "embedding.weight" : "head.weight");
  const Part held = model.layout().held();
  all_bounds_ = table.bounds;
  bounds_.assign(table.bounds.begin() + held.begin, table.bounds.begin() + held.begin + held.count + 1);
  weight_.assign(table.parts.begin() + held.begin, table.parts.begin() + held.begin + held.count);
}

PolicyHead::Buffers PolicyHead::take(Arena& arena, std::int64_t rows, Transformer::Keep keep) const {
  const std::int64_t block = std::min(rows, kernels::row_block);
  Buffers b;
  for (const View& weight : weight_) b.logits.push_back(arena.take({block, weight.shape[0]}));
  b.statistics.push_back(arena.take({block, 4}));
  for (std::size_t v = 1; v < weight_.size(); v *= 2) b.statistics.push_back(arena.take({block, 4}));
  if (tree_.shared()) b.all_statistics = arena.take({tree_.ranks->size() * block * 4});
  b.hidden = arena.take({block, width_});
  b.rows = arena.take({rows}, DType::i32);
  b.targets = arena.take({rows}, DType::i32);
  b.logprob = arena.take({rows});
  b.entropy = arena.take({rows});
  b.lse = arena.take({rows});
  if (keep == Transformer::Keep::all) {
    b.tree = tree_.with_exchange(arena, block * width_);
    for (std::size_t v = 1; v < weight_.size(); v *= 2) b.tree.room.push_back(arena.take({block, width_}));
    b.dhidden = arena.take({block, width_});
    b.dlogprob = arena.take({rows});
    b.dentropy = arena.take({rows});
  }
  if (arena.counts()) return b;
  for (auto* host : {&b.host_rows, &b.host_targets}) host->reserve(static_cast<std::size_t>(rows));
  for (auto& host : b.host) host.resize(static_cast<std::size_t>(rows));
  return b;
}

namespace {

/// Calls step with each block of 256 of `rows` gathered rows, in order.
void for_each_block(std::int64_t rows, const std::function<void(const Part& block)>& step) {
  for (std::int64_t begin = 0; begin < rows; begin += kernels::row_block) step({begin, std::min(kernels::row_block, rows - begin)});
}

}  // namespace

/// The rows that have a target, padded by rows -1; b.rows and b.targets. Never more than the grain has: both are padded alike.
void PolicyHead::choose(std::span<const std::int32_t> targets, Buffers& b, Stream& stream) const {
  b.host_rows.clear();
  b.host_targets.clear();
  for (std::size_t row = 0; row < targets.size(); ++row) {
    if (targets[row] < 0) continue;
    b.host_rows.push_back(static_cast<std::int32_t>(row));
    b.host_targets.push_back(targets[row]);
  }
  b.count = std::ssize(b.host_rows);
  const std::int64_t rows = kernels::padded_rows(b.count);
  b.host_rows.resize(static_cast<std::size_t>(rows), -1);
  b.host_targets.resize(static_cast<std::size_t>(rows), -1);
  staging_->put(b.rows.slice(0, rows), b.host_rows, stream);
  staging_->put(b.targets.slice(0, rows), b.host_targets, stream);
}

/// b.hidden of a block; padding rows are zeros.
void PolicyHead::gather(const Part& block, Tensor hidden, Buffers& b, Stream& stream) const {
  const Tensor x = b.hidden.slice(0, block.count);
  x.zero(stream);
  kernels::embedding_forward(x, hidden, b.rows.slice(block.begin, block.count), 0, stream);
}

void PolicyHead::merge(int first, int shards, std::size_t depth, const Part& block, float temperature, Buffers& b, Stream& stream) const {
  const Tensor statistics = b.statistics[depth].slice(0, block.count);
  if (shards == 1)
    return kernels::logit_statistics(statistics, b.logits[first].slice(0, block.count), b.targets.slice(block.begin, block.count), bounds_[first],
                                     temperature, stream);
  merge(first, shards / 2, depth, block, temperature, b, stream);
  merge(first + shards / 2, shards / 2, depth + 1, block, temperature, b, stream);
  kernels::merge_statistics(statistics, b.statistics[depth + 1].slice(0, block.count), stream);
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
  copy(mine, of(0), stream);
}

void PolicyHead::block_logits(const Part& block, Buffers& b, const Lease& lease, Stream& stream) const {
  for (std::size_t v = 0; v < weight_.size(); ++v)
    if (weight_[v].shape[0])
      kernels::linear_forward(b.logits[v].slice(0, block.count), b.hidden.slice(0, block.count), lease.at(weight_[v]), {}, kernels::Write::replace,
                              stream);
}

void PolicyHead::block_statistics(const Part& block, float temperature, Buffers& b, const Lease& lease, Stream& stream) const {
  block_logits(block, b, lease, stream);
  merge(0, static_cast<int>(weight_.size()), 0, block, temperature, b, stream);
  merge_ranks(block.count, b, stream);
  const auto of = [&](const Tensor& tensor) { return tensor.slice(block.begin, block.count); };
  kernels::finish_statistics(of(b.logprob), of(b.entropy), of(b.lse), b.statistics[0].slice(0, block.count), of(b.targets), stream);
}

void PolicyHead::score(Tensor hidden, std::span<const std::int32_t> targets, float temperature, Buffers& b, const Lease& lease,
                       Stream& stream, std::span<float> logprob, std::span<float> entropy) const {
  std::fill(logprob.begin(), logprob.end(), 0.0f);
  std::fill(entropy.begin(), entropy.end(), 0.0f);
  choose(targets, b, stream);
  if (b.count == 0) return;
  for_each_block(std::ssize(b.host_rows), [&](const Part& block) {
    gather(block, hidden, b, stream);
    block_statistics(block, temperature, b, lease, stream);
  });
  staging_->get(std::span(b.host[0]).first(b.count), b.logprob.slice(0, b.count), stream);
  staging_->get(std::span(b.host[1]).first(b.count), b.entropy.slice(0, b.count), stream);
  for (std::int64_t i = 0; i < b.count; ++i) {
    logprob[b.host_rows[i]] = b.host[0][i];
    entropy[b.host_rows[i]] = b.host[1][i];
  }
}

/// The loss on the host, and its gradients on the device, for some of the gathered rows.
void PolicyHead::judge(const Part& rows, Buffers& b, Stream& stream, const TokenLoss& loss) const {
  const auto here = [&](int i) { return std::span(b.host[i]).subspan(rows.begin, rows.count); };
  staging_->get(here(0), b.logprob.slice(rows.begin, rows.count), stream);
  staging_->get(here(1), b.entropy.slice(rows.begin, rows.count), stream);
  for (const int i : {2, 3}) std::ranges::fill(here(i), 0.0f);
  const std::int64_t last = std::min(rows.begin + rows.count, b.count);
  for (std::int64_t begin = rows.begin, end = 0; begin < last; begin = end) {  // runs of consecutive rows
    for (end = begin + 1; end < last && b.host_rows[end] == b.host_rows[end - 1] + 1;) ++end;
    const auto run = [&](int i) { return std::span(b.host[i]).subspan(begin, end - begin); };
    loss(b.host_rows[begin], run(0), run(1), run(2), run(3));
  }
  staging_->put(b.dlogprob.slice(rows.begin, rows.count), std::span<const float>(here(2)), stream);
  staging_->put(b.dentropy.slice(rows.begin, rows.count), std::span<const float>(here(3)), stream);
}

// dlogits = loss gradient through log-softmax; dhidden = sum over shards of dlogits_v W_v; dW_v = dlogits_v^T hidden, block after block.
void PolicyHead::block_gradients(const Part& block, Tensor dhidden, float temperature, Buffers& b, const Lease& lease, Stream& stream) const {
  const Tensor x = b.hidden.slice(0, block.count), dx = b.dhidden.slice(0, block.count);
  const auto of = [&](const Tensor& tensor) { return tensor.slice(block.begin, block.count); };
  sum_over_shards(dx, b.tree, stream, [&](int v, Tensor partial) {
    if (weight_[v].shape[0] == 0) return partial.zero(stream);
    const Tensor logits = b.logits[v].slice(0, block.count);
    kernels::logit_gradient(logits, of(b.lse), of(b.entropy), of(b.targets), of(b.dlogprob), of(b.dentropy), bounds_[v], temperature, stream);
    if (lease.gradient)
      kernels::linear_backward_weight(lease.gradient_at(weight_[v]), logits, x, block.begin ? kernels::Write::add : kernels::Write::replace,
                                      stream);
    kernels::linear_backward_input(partial, logits, lease.at(weight_[v]), kernels::Write::replace, stream);
  });
  kernels::embedding_backward(dhidden, dx, of(b.rows), 0, stream);
}

void PolicyHead::forward_backward(Tensor dhidden, Tensor hidden, std::span<const std::int32_t> targets, float temperature, Buffers& b,
                                  const Lease& lease, Stream& stream, Sweeps sweeps, const TokenLoss& loss) const {
  dhidden.zero(stream);
  choose(targets, b, stream);
  if (b.count == 0) return;
  const std::int64_t rows = std::ssize(b.host_rows);
  const bool once = sweeps == Sweeps::once;
  for_each_block(rows, [&](const Part& block) {
    gather(block, hidden, b, stream);
    block_statistics(block, temperature, b, lease, stream);
    if (!once) return;
    judge(block, b, stream, loss);
    block_gradients(block, dhidden, temperature, b, lease, stream);
  });
  if (once) return;
  judge({0, rows}, b, stream, loss);
  for_each_block(rows, [&](const Part& block) {
    gather(block, hidden, b, stream);
    block_logits(block, b, lease, stream);
    block_gradients(block, dhidden, temperature, b, lease, stream);
  });
}

void PolicyHead::logits(Tensor hidden, Buffers& b, const Lease& lease, Stream& stream, std::span<float> out) const {
  ensure(!tree_.shared(), "logits are whole on one rank only");
  const std::int64_t vocabulary = all_bounds_.back();
  std::vector<float> host;
  for (std::int64_t row = 0; row < hidden[0]; row += kernels::row_block) {
    const std::int64_t rows = std::min(kernels::row_block, hidden[0] - row);
    for (std::size_t v = 0; v < weight_.size(); ++v) {
      const std::int64_t columns = weight_[v].shape[0];
      if (columns == 0) continue;
      const Tensor part = b.logits[v].slice(0, rows);
      kernels::linear_forward(part, hidden.slice(row, rows), lease.at(weight_[v]), {}, kernels::Write::replace, stream);
      host.resize(static_cast<std::size_t>(part.count()));
      staging_->get(host, part, stream);
      for (std::int64_t r = 0; r < rows; ++r) std::copy_n(host.begin() + r * columns, columns, out.begin() + (row + r) * vocabulary + bounds_[v]);
    }
  }
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
                          lease.at(weight_).reshape({hidden[1]}), kernels::Write::replace, stream);
}

}  // namespace collimate
