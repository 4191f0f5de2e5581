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

PolicyHead::Buffers PolicyHead::take(Arena& arena, std::int64_t grains, std::int64_t grain_rows, Transformer::Keep keep) const {
  const bool learns = keep == Transformer::Keep::all, once = learns && sweeps_ == Sweeps::once;
  const std::int64_t rows = grains * grain_rows;
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
  b.grains.reserve(static_cast<std::size_t>(grains));
  b.counts.reserve(static_cast<std::size_t>(grains));
  for (auto* host : {&b.host_rows, &b.host_targets}) host->reserve(static_cast<std::size_t>(rows));
  for (auto& host : b.host) host.resize(static_cast<std::size_t>(rows));
  return b;
}

/// Calls step with each block of some gathered rows, in order.
void PolicyHead::for_each_block(const Part& rows, const Work& work, const EachBlock& step) const {
  for (std::size_t g = 0; g < work.group.size(); ++g) {
    const Part& part = work.buffers.grains[g];
    const std::int64_t end = std::min(part.begin + part.count, rows.begin + rows.count);
    for (std::int64_t begin = std::max(part.begin, rows.begin); begin < end; begin += kernels::row_block)
      step({g, {begin, std::min(kernels::row_block, end - begin)}});
  }
}

namespace {

/// The rows of a block in what holds some rows, of which it is a part.
Tensor within(const Tensor& tensor, const Part& rows, const Part& block) { return tensor.slice(block.begin - rows.begin, block.count); }

}  // namespace

/// The rows that have a target, each grain's padded by rows -1; b.rows and b.targets. Never more than a grain has: both are padded alike.
void PolicyHead::choose(const Work& work) const {
  Buffers& b = work.buffers;
  b.host_rows.clear();
  b.host_targets.clear();
  b.grains.clear();
  b.counts.clear();
  for (const Grain& grain : work.group) {
    const std::int64_t begin = std::ssize(b.host_rows);
    for (std::size_t row = 0; row < grain.targets.size(); ++row) {
      if (grain.targets[row] < 0) continue;
      b.host_rows.push_back(static_cast<std::int32_t>(row));
      b.host_targets.push_back(grain.targets[row]);
    }
    const std::int64_t count = std::ssize(b.host_rows) - begin, padded = kernels::padded_rows(count);
    b.grains.push_back({begin, padded});
    b.counts.push_back(count);
    b.host_rows.resize(static_cast<std::size_t>(begin + padded), -1);
    b.host_targets.resize(static_cast<std::size_t>(begin + padded), -1);
  }
  const std::int64_t rows = std::ssize(b.host_rows);
  staging_->put(b.rows.slice(0, rows), b.host_rows, work.stream);
  staging_->put(b.targets.slice(0, rows), b.host_targets, work.stream);
}

/// b.hidden of a block; padding rows are zeros.
void PolicyHead::gather(const RowBlock& block, const Work& work) const {
  const Tensor x = work.buffers.hidden.slice(0, block.rows.count);
  x.zero(work.stream);
  kernels::embedding_forward(x, work.group[block.grain].hidden, work.buffers.rows.slice(block.rows.begin, block.rows.count), 0, work.stream);
}

Part PolicyHead::units_of(int shard) const {
  const auto of = [&](const TableRows& unit) { return unit.shard == first_shard_ + shard; };
  const auto begin = std::ranges::find_if(units_, of);
  return {begin - units_.begin(), std::find_if_not(begin, units_.end(), of) - begin};
}

/// The values of a unit: the only ones leased, but where the table is gone over once.
const Lease& PolicyHead::lease(std::size_t unit, const Work& work) const {
  std::vector<Lease>& leases = work.buffers.leases;
  if (work.once) return leases[unit];
  leases[0] = {};  // before the next one comes
  return leases[0] = work.store.fetch(units_[unit].unit);
}

void PolicyHead::close(const Work& work) const {
  for (Lease& lease : work.buffers.leases) lease = {};
}

Tensor PolicyHead::block_logits(std::size_t unit, const RowBlock& block, const Work& work) const {
  const Buffers& b = work.buffers;
  const Tensor logits = b.logits[unit].slice(0, block.rows.count);
  kernels::linear_forward(logits, b.hidden.slice(0, block.rows.count), b.leases[work.once ? unit : 0].at(units_[unit].view), {}, kernels::Write::replace,
                          work.stream);
  return logits;
}

/// b.statistics[depth] of some rows and one shard, whose units go on one behind the other.
void PolicyHead::shard_statistics(int shard, const Part& rows, std::size_t depth, const Work& work) const {
  Buffers& b = work.buffers;
  const auto add = [&](const RowBlock& block, Tensor logits, std::int64_t first, kernels::Write write) {
    kernels::logit_statistics(within(b.statistics[depth], rows, block.rows), within(b.sums, rows, block.rows), logits,
                              b.targets.slice(block.rows.begin, block.rows.count), first, work.temperature, write, work.stream);
  };
  const Part units = units_of(shard);
  if (units.count == 0)
    for_each_block(rows, work, [&](const RowBlock& block) {
      add(block, b.hidden.slice(0, 0).reshape({block.rows.count, 0}), bounds_[shard], kernels::Write::replace);
    });
  for (std::int64_t u = units.begin; u < units.begin + units.count; ++u) {
    lease(u, work);
    for_each_block(rows, work, [&](const RowBlock& block) {
      if (!work.once) gather(block, work);
      add(block, block_logits(u, block, work), units_[u].first, u > units.begin ? kernels::Write::go_on : kernels::Write::replace);
    });
  }
}

void PolicyHead::merge(int first, int shards, std::size_t depth, const Part& rows, const Work& work) const {
  if (shards == 1) return shard_statistics(first, rows, depth, work);
  merge(first, shards / 2, depth, rows, work);
  merge(first + shards / 2, shards / 2, depth + 1, rows, work);
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
void PolicyHead::statistics(const Part& rows, const Work& work) const {
  merge(0, tree_.shards, 0, rows, work);
  if (rows.count == 0) return;
  merge_ranks(rows.count, work);
  const Buffers& b = work.buffers;
  const auto of = [&](const Tensor& tensor) { return tensor.slice(rows.begin, rows.count); };
  kernels::finish_statistics(of(b.logprob), of(b.entropy), of(b.lse), b.statistics[0].slice(0, rows.count), of(b.targets), work.stream);
}

void PolicyHead::score(std::span<const Grain> group, float temperature, Buffers& b, ParameterStore& store, Stream& stream, const Each& each) const {
  const Work work{group, b, store, stream, temperature};
  choose(work);
  const std::int64_t rows = std::ssize(b.host_rows);
  statistics({0, rows}, work);
  close(work);
  for (const int i : {0, 1}) staging_->get(std::span(b.host[i]).first(rows), (i ? b.entropy : b.logprob).slice(0, rows), stream);
  std::vector<float> logprob, entropy;
  for (std::size_t g = 0; g < group.size(); ++g) {
    if (group[g].targets.empty()) continue;
    logprob.assign(group[g].targets.size(), 0.0f);
    entropy.assign(group[g].targets.size(), 0.0f);
    for (std::int64_t i = b.grains[g].begin; i < b.grains[g].begin + b.counts[g]; ++i) {
      logprob[b.host_rows[i]] = b.host[0][i];
      entropy[b.host_rows[i]] = b.host[1][i];
    }
    each(g, logprob, entropy);
  }
}

/// The loss on the host, and its gradients on the device, for some of the gathered rows.
void PolicyHead::judge(const Part& rows, const Work& work, const GrainTokenLoss& loss) const {
  Buffers& b = work.buffers;
  const auto here = [&](int i) { return std::span(b.host[i]).subspan(rows.begin, rows.count); };
  staging_->get(here(0), b.logprob.slice(rows.begin, rows.count), work.stream);
  staging_->get(here(1), b.entropy.slice(rows.begin, rows.count), work.stream);
  for (const int i : {2, 3}) std::ranges::fill(here(i), 0.0f);
  for (std::size_t g = 0; g < work.group.size(); ++g) {
    const std::int64_t last = std::min(rows.begin + rows.count, b.grains[g].begin + b.counts[g]);
    for (std::int64_t begin = std::max(rows.begin, b.grains[g].begin), end = 0; begin < last; begin = end) {  // runs of consecutive rows
      for (end = begin + 1; end < last && b.host_rows[end] == b.host_rows[end - 1] + 1;) ++end;
      const auto run = [&](int i) { return std::span(b.host[i]).subspan(begin, end - begin); };
      loss(g, b.host_rows[begin], run(0), run(1), run(2), run(3));
    }
  }
  staging_->put(b.dlogprob.slice(rows.begin, rows.count), std::span<const float>(here(2)), work.stream);
  staging_->put(b.dentropy.slice(rows.begin, rows.count), std::span<const float>(here(3)), work.stream);
}

/// From the gradient of a block's logits: dW_u += dlogits^T hidden, and the partial dhidden of the shard, in which its units go on one behind the
/// other.
void PolicyHead::unit_gradient(std::size_t u, Lease& unit, const RowBlock& block, Tensor partial, bool first, const Work& work) const {
  Buffers& b = work.buffers;
  const auto of = [&](const Tensor& tensor) { return tensor.slice(block.rows.begin, block.rows.count); };
  if (!work.once) gather(block, work);
  const Tensor x = b.hidden.slice(0, block.rows.count), logits = work.once ? b.logits[u].slice(0, block.rows.count) : block_logits(u, block, work);
  kernels::logit_gradient(logits, of(b.lse), of(b.entropy), of(b.targets), of(b.dlogprob), of(b.dentropy), units_[u].first, work.temperature, work.stream);
  if (unit.gradient)
    kernels::linear_backward_weight(unit.gradient_at(units_[u].view), logits, x,
                                    block.rows.begin > b.grains[block.grain].begin ? kernels::Write::add : kernels::Write::replace, work.stream);
  kernels::linear_backward_input(partial, logits, unit.at(units_[u].view), first ? kernels::Write::replace : kernels::Write::go_on, work.stream);
}

// dlogits = loss gradient through log-softmax; dhidden = sum over shards of dlogits_v W_v; dW_v = dlogits_v^T hidden, block after block.
void PolicyHead::gradients(const Part& rows, const Work& work) const {
  Buffers& b = work.buffers;
  const auto shard = [&](int v, Tensor partial) {
    const Part units = units_of(v);
    if (units.count == 0) partial.zero(work.stream);
    for (std::int64_t u = units.begin; u < units.begin + units.count; ++u) {
      const auto over = [&](const Part& some, Lease& unit) {
        for_each_block(some, work,
                       [&](const RowBlock& block) { unit_gradient(u, unit, block, within(partial, rows, block.rows), u == units.begin, work); });
      };
      if (work.once) {
        over(rows, b.leases[u]);
        continue;
      }
      lease(u, work);
      for (std::size_t g = 0; g < work.group.size(); ++g) {
        if (!work.group[g].targets.empty()) b.leases[0].gradient = work.store.gradient(units_[u].unit).gradient;
        over(b.grains[g], b.leases[0]);
        work.store.reduce(units_[u].unit);
      }
    }
  };
  const Tensor dx = b.dhidden.slice(0, rows.count);
  if (rows.count)
    sum_over_shards(dx, b.tree, work.stream, shard);
  else  // the other replicas' turn
    for (int v = 0; v < tree_.shards; ++v) shard(v, dx);
  for (std::size_t g = 0; g < work.group.size(); ++g) {
    const Part& grain = b.grains[g];
    const std::int64_t begin = std::max(rows.begin, grain.begin), count = std::min(rows.begin + rows.count, grain.begin + grain.count) - begin;
    if (count > 0) kernels::embedding_backward(work.group[g].dhidden, dx.slice(begin - rows.begin, count), b.rows.slice(begin, count), 0, work.stream);
  }
}

void PolicyHead::learn_once(std::size_t grain, const Work& work, const GrainTokenLoss& loss) const {
  Buffers& b = work.buffers;
  for (std::size_t u = 0; u < units_.size() && !work.group[grain].targets.empty(); ++u)
    b.leases[u].gradient = work.store.gradient(units_[u].unit).gradient;
  for_each_block(b.grains[grain], work, [&](const RowBlock& block) {
    gather(block, work);
    statistics(block.rows, work);
    judge(block.rows, work, loss);
    gradients(block.rows, work);
  });
  for (const TableRows& unit : units_) work.store.reduce(unit.unit);
}

void PolicyHead::forward_backward(std::span<const Grain> group, float temperature, Buffers& b, ParameterStore& store, Stream& stream,
                                  const GrainTokenLoss& loss) const {
  const Work work{group, b, store, stream, temperature, sweeps_ == Sweeps::once};
  for (const Grain& grain : group)
    if (grain.dhidden.count()) grain.dhidden.zero(stream);
  choose(work);
  if (work.once) {
    for (std::size_t u = 0; u < units_.size(); ++u) b.leases[u] = store.fetch(units_[u].unit);
    for (std::size_t g = 0; g < group.size(); ++g) learn_once(g, work, loss);
  } else {
    const Part rows{0, std::ssize(b.host_rows)};
    statistics(rows, work);
    judge(rows, work, loss);
    gradients(rows, work);
  }
  close(work);
}

void PolicyHead::logits(Tensor hidden, Buffers& b, ParameterStore& store, Stream& stream, std::span<float> out) const {
  ensure(!tree_.shared(), "logits are whole on one rank only");
  const std::int64_t vocabulary = all_bounds_.back();
  const Work work{{}, b, store, stream};
  std::vector<float> host;
  for (std::size_t u = 0; u < units_.size(); ++u) {
    const Tensor weight = lease(u, work).at(units_[u].view);
    const std::int64_t columns = weight[0];
    for (std::int64_t begin = 0; begin < hidden[0]; begin += kernels::row_block) {
      const std::int64_t count = std::min(kernels::row_block, hidden[0] - begin);
      const Tensor part = b.logits[u].slice(0, count);
      kernels::linear_forward(part, hidden.slice(begin, count), weight, {}, kernels::Write::replace, stream);
      host.resize(static_cast<std::size_t>(part.count()));
      staging_->get(host, part, stream);
      for (std::int64_t r = 0; r < count; ++r) std::copy_n(host.begin() + r * columns, columns, out.begin() + (begin + r) * vocabulary + units_[u].first);
    }
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
