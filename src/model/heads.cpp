#include "collimate/model/heads.hpp"

#include <algorithm>

#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/embedding.hpp"
#include "collimate/kernels/head.hpp"
#include "collimate/kernels/matmul.hpp"
#include "collimate/kernels/rows.hpp"

namespace collimate {

PolicyHead::PolicyHead(const Transformer& model, Sweeps sweeps)
    : width_(model.config().width), sweeps_(sweeps), tree_(model.shard_tree()), staging_(&model.plan().staging()) {
  const std::string name = model.config().tied ? "embedding.weight" : "head.weight";
  const Part held = model.layout().held();
  all_bounds_ = model.layout().parameter(name).bounds;
  bounds_.assign(all_bounds_.begin() + held.begin, all_bounds_.begin() + held.begin + held.count + 1);
  first_shard_ = static_cast<int>(held.begin);
  units_ = model.layout().table_rows(name, model.head_place());
}

std::vector<int> PolicyHead::scoring_route() const {
  std::vector<int> route;
  for (const TableRows& rows : units_) route.push_back(rows.unit);
  return route;
}

std::vector<int> PolicyHead::learning_route() const {
  std::vector<int> route = scoring_route();
  const std::size_t units = route.size();
  for (std::size_t u = 0; sweeps_ == Sweeps::twice && u < units; ++u) route.push_back(route[u]);
  return route;
}

PolicyHead::Buffers PolicyHead::take(Arena& arena, std::int64_t rows, Transformer::Keep keep) const {
  const bool learns = keep == Transformer::Keep::all, once = learns && sweeps_ == Sweeps::once;
  const std::int64_t block = std::min(rows, kernels::row_block), all = once ? block : rows;
  Buffers b;
  std::int64_t widest = 0;
  for (const TableRows& unit : units_) widest = std::max(widest, unit.view.shape[0]);
  const Tensor room = once ? Tensor() : arena.take({block * widest});
  for (const TableRows& unit : units_) {
    const std::int64_t columns = unit.view.shape[0];
    b.logits.push_back(once ? arena.take({block, columns}) : room.slice(0, block * columns).reshape({block, columns}));
  }
  b.leases.resize(units_.size());
  b.statistics.push_back(arena.take({all, 4}));
  for (std::int64_t v = 1; v < tree_.shards; v *= 2) b.statistics.push_back(arena.take({all, 4}));
  b.sums = arena.take({all, 2}, DType::f64);
  if (tree_.shared()) b.all_statistics = arena.take({tree_.ranks->size() * all * 4});
  b.hidden = arena.take({block, width_});
  b.rows = arena.take({rows}, DType::i32);
  b.targets = arena.take({rows}, DType::i32);
  b.logprob = arena.take({rows});
  b.entropy = arena.take({rows});
  b.lse = arena.take({rows});
  if (learns) {
    b.tree = tree_.with_exchange(arena, all * width_);
    for (std::int64_t v = 1; v < tree_.shards; v *= 2) b.tree.room.push_back(arena.take({all, width_}));
    b.dhidden = arena.take({all, width_});
    b.dlogprob = arena.take({rows});
    b.dentropy = arena.take({rows});
  }
  if (arena.counts()) return b;
  for (auto* host : {&b.host_rows, &b.host_targets}) host->reserve(static_cast<std::size_t>(rows));
  for (auto& host : b.host) host.resize(static_cast<std::size_t>(rows));
  return b;
}

namespace {

/// Calls step with each block of 256 of some gathered rows, in order.
void for_each_block(const Part& rows, const std::function<void(const Part& block)>& step) {
  for (std::int64_t begin = rows.begin, end = rows.begin + rows.count; begin < end; begin += kernels::row_block)
    step({begin, std::min(kernels::row_block, end - begin)});
}

/// The rows of a block in what holds some rows, of which it is a part.
Tensor within(const Tensor& tensor, const Part& rows, const Part& block) { return tensor.slice(block.begin - rows.begin, block.count); }

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

Part PolicyHead::units_of(int shard) const {
  const auto of = [&](const TableRows& unit) { return unit.shard == first_shard_ + shard; };
  const auto begin = std::ranges::find_if(units_, of);
  return {begin - units_.begin(), std::find_if_not(begin, units_.end(), of) - begin};
}

/// The values (and the gradient) of a unit: the only ones leased, but where the table is gone over once.
const Lease& PolicyHead::lease(std::size_t unit, const Work& work, bool gradient) const {
  std::vector<Lease>& leases = work.buffers.leases;
  if (work.once) return leases[unit];
  leases[0] = {};  // before the next one comes
  return leases[0] = gradient ? work.store.fetch(units_[unit].unit) : work.store.fetch_values(units_[unit].unit);
}

void PolicyHead::fetch_all(const Work& work) const {
  for (std::size_t u = 0; u < units_.size(); ++u) work.buffers.leases[u] = work.store.fetch(units_[u].unit);
}

void PolicyHead::close(const Work& work) const {
  for (Lease& lease : work.buffers.leases) lease = {};
}

Tensor PolicyHead::block_logits(std::size_t unit, const Part& block, const Work& work) const {
  const Buffers& b = work.buffers;
  const Tensor logits = b.logits[unit].slice(0, block.count);
  kernels::linear_forward(logits, b.hidden.slice(0, block.count), b.leases[work.once ? unit : 0].at(units_[unit].view), {}, kernels::Write::replace,
                          work.stream);
  return logits;
}

/// b.statistics[depth] of some rows and one shard, whose units go on one behind the other.
void PolicyHead::shard_statistics(int shard, const Part& rows, std::size_t depth, Tensor hidden, const Work& work) const {
  Buffers& b = work.buffers;
  const auto add = [&](const Part& block, Tensor logits, std::int64_t first, kernels::Write write) {
    kernels::logit_statistics(within(b.statistics[depth], rows, block), within(b.sums, rows, block), logits, b.targets.slice(block.begin, block.count),
                              first, work.temperature, write, work.stream);
  };
  const Part units = units_of(shard);
  if (units.count == 0)
    for_each_block(rows, [&](const Part& block) { add(block, b.hidden.slice(0, 0).reshape({block.count, 0}), bounds_[shard], kernels::Write::replace); });
  for (std::int64_t u = units.begin; u < units.begin + units.count; ++u) {
    lease(u, work);
    for_each_block(rows, [&](const Part& block) {
      if (!work.once) gather(block, hidden, b, work.stream);
      add(block, block_logits(u, block, work), units_[u].first, u > units.begin ? kernels::Write::go_on : kernels::Write::replace);
    });
  }
}

void PolicyHead::merge(int first, int shards, std::size_t depth, const Part& rows, Tensor hidden, const Work& work) const {
  if (shards == 1) return shard_statistics(first, rows, depth, hidden, work);
  merge(first, shards / 2, depth, rows, hidden, work);
  merge(first + shards / 2, shards / 2, depth + 1, rows, hidden, work);
  const auto of = [&](std::size_t d) { return work.buffers.statistics[d].slice(0, rows.count); };
  kernels::merge_statistics(of(depth), of(depth + 1), work.stream);
}

/// The upper levels of the same tree: every rank gets the others' four numbers per row and merges alike.
void PolicyHead::merge_ranks(std::int64_t rows, const Work& work) const {
  if (!tree_.shared()) return;
  const int ranks = tree_.ranks->size();
  const Tensor mine = work.buffers.statistics[0].slice(0, rows), all = work.buffers.all_statistics.slice(0, ranks * rows * 4);
  tree_.ranks->all_gather(all, mine.reshape({rows * 4}), work.stream);
  const auto of = [&](int rank) { return all.slice(rank * rows * 4, rows * 4).reshape({rows, 4}); };
  for (int distance = 1; distance < ranks; distance *= 2)
    for (int rank = 0; rank + distance < ranks; rank += 2 * distance) kernels::merge_statistics(of(rank), of(rank + distance), work.stream);
  copy(mine, of(0), work.stream);
}

/// b.logprob, b.entropy and b.lse of some rows.
void PolicyHead::statistics(const Part& rows, Tensor hidden, const Work& work) const {
  merge(0, tree_.shards, 0, rows, hidden, work);
  if (rows.count == 0) return;
  merge_ranks(rows.count, work);
  const Buffers& b = work.buffers;
  const auto of = [&](const Tensor& tensor) { return tensor.slice(rows.begin, rows.count); };
  kernels::finish_statistics(of(b.logprob), of(b.entropy), of(b.lse), b.statistics[0].slice(0, rows.count), of(b.targets), work.stream);
}

void PolicyHead::score(Tensor hidden, std::span<const std::int32_t> targets, float temperature, Buffers& b, ParameterStore& store,
                       Stream& stream, std::span<float> logprob, std::span<float> entropy) const {
  std::fill(logprob.begin(), logprob.end(), 0.0f);
  std::fill(entropy.begin(), entropy.end(), 0.0f);
  choose(targets, b, stream);
  const Work work{b, store, stream, temperature};
  statistics({0, std::ssize(b.host_rows)}, hidden, work);
  close(work);
  if (b.count == 0) return;
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

// dlogits = loss gradient through log-softmax; dhidden = sum over shards of dlogits_v W_v, in which a shard's units go on one behind the other;
// dW_v = dlogits_v^T hidden, block after block.
void PolicyHead::gradients(const Part& rows, Tensor dhidden, Tensor hidden, const Work& work) const {
  Buffers& b = work.buffers;
  Stream& stream = work.stream;
  const auto shard = [&](int v, Tensor partial) {
    const Part units = units_of(v);
    if (units.count == 0) partial.zero(stream);
    for (std::int64_t u = units.begin; u < units.begin + units.count; ++u) {
      const Lease& unit = lease(u, work, true);
      for_each_block(rows, [&](const Part& block) {
        const auto of = [&](const Tensor& tensor) { return tensor.slice(block.begin, block.count); };
        if (!work.once) gather(block, hidden, b, stream);
        const Tensor x = b.hidden.slice(0, block.count), logits = work.once ? b.logits[u].slice(0, block.count) : block_logits(u, block, work);
        kernels::logit_gradient(logits, of(b.lse), of(b.entropy), of(b.targets), of(b.dlogprob), of(b.dentropy), units_[u].first, work.temperature,
                                stream);
        if (unit.gradient)
          kernels::linear_backward_weight(unit.gradient_at(units_[u].view), logits, x, block.begin ? kernels::Write::add : kernels::Write::replace,
                                          stream);
        kernels::linear_backward_input(within(partial, rows, block), logits, unit.at(units_[u].view),
                                       u > units.begin ? kernels::Write::go_on : kernels::Write::replace, stream);
      });
      if (!work.once) work.store.reduce(units_[u].unit);
    }
  };
  const Tensor dx = b.dhidden.slice(0, rows.count);
  if (rows.count)
    sum_over_shards(dx, b.tree, stream, shard);
  else  // the other replicas' turn
    for (int v = 0; v < tree_.shards; ++v) shard(v, dx);
  if (rows.count) kernels::embedding_backward(dhidden, dx, b.rows.slice(rows.begin, rows.count), 0, stream);
}

void PolicyHead::forward_backward(Tensor dhidden, Tensor hidden, std::span<const std::int32_t> targets, float temperature, Buffers& b,
                                  ParameterStore& store, Stream& stream, const TokenLoss& loss) const {
  if (dhidden.count()) dhidden.zero(stream);
  choose(targets, b, stream);
  const Part rows{0, std::ssize(b.host_rows)};
  const Work work{b, store, stream, temperature, sweeps_ == Sweeps::once};
  if (work.once) {
    fetch_all(work);
    for_each_block(rows, [&](const Part& block) {
      gather(block, hidden, b, stream);
      statistics(block, hidden, work);
      judge(block, b, stream, loss);
      gradients(block, dhidden, hidden, work);
    });
    for (const TableRows& unit : units_) store.reduce(unit.unit);
  } else {
    statistics(rows, hidden, work);
    judge(rows, b, stream, loss);
    gradients(rows, dhidden, hidden, work);
  }
  close(work);
}

void PolicyHead::logits(Tensor hidden, Buffers& b, ParameterStore& store, Stream& stream, std::span<float> out) const {
  ensure(!tree_.shared(), "logits are whole on one rank only");
  const std::int64_t vocabulary = all_bounds_.back();
  const Work work{b, store, stream};
  std::vector<float> host;
  for (std::size_t u = 0; u < units_.size(); ++u) {
    const Tensor weight = lease(u, work).at(units_[u].view);
    const std::int64_t columns = weight[0];
    for_each_block({0, hidden[0]}, [&](const Part& block) {
      const Tensor part = b.logits[u].slice(0, block.count);
      kernels::linear_forward(part, hidden.slice(block.begin, block.count), weight, {}, kernels::Write::replace, stream);
      host.resize(static_cast<std::size_t>(part.count()));
      staging_->get(host, part, stream);
      for (std::int64_t r = 0; r < block.count; ++r)
        std::copy_n(host.begin() + r * columns, columns, out.begin() + (block.begin + r) * vocabulary + units_[u].first);
    });
  }
  close(work);
}

std::int64_t PolicyHead::decode_scratch(std::int64_t rows) const {
  if (units_.size() == 1 && !tree_.shared()) return 0;
  return rows * (tree_.shared() ? 3 : 1) * all_bounds_.back();
}

void PolicyHead::decode(Tensor logits, Tensor hidden, Tensor scratch, ParameterStore& store, Stream& stream) const {
  if (units_.size() == 1 && !tree_.shared())
    return kernels::linear_decode(logits, hidden, store.fetch(units_[0].unit).at(units_[0].view), {}, stream);
  const std::int64_t rows = hidden[0], first = bounds_.front(), mine = bounds_.back() - first;
  const auto room = [&](std::int64_t begin, std::int64_t columns) { return scratch.slice(begin, rows * columns).reshape({rows, columns}); };
  const Tensor own = tree_.shared() ? room(rows * all_bounds_.back(), mine) : logits;  // the columns of this rank's shards
  for (const TableRows& unit : units_) {
    const std::int64_t columns = unit.view.shape[0], place = unit.first - first;
    const bool here = rows == 1;  // its columns lie together
    const Tensor part = here ? own.slice(0, 1).reshape({own.count()}).slice(place, columns).reshape({1, columns}) : room(0, columns);
    kernels::linear_decode(part, hidden, store.fetch(unit.unit).at(unit.view), {}, stream);
    if (!here) kernels::copy_columns(own, place, part, 0, columns, stream);
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
