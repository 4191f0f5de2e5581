#include "collimate/model/embedding.hpp"

#include <algorithm>

#include "collimate/kernels/embedding.hpp"

namespace collimate {
namespace {

constexpr std::int64_t rows_at_once = 256;  // on the host

}  // namespace

void Embedding::declare(const ModelConfig& config, ParameterLayout& layout, Presence table, Presence positions, std::int64_t unit) {
  layout.open_chunk("embedding", table, unit);
  layout.add("embedding.weight", {config.vocabulary, config.width}, Split::rows, shard_bounds(config.vocabulary, layout.shards()), true, {0.02});
  layout.close_chunk();
  if (config.positions != Positions::learned) return;
  layout.open_chunk("position", positions);
  layout.add("position.weight", {config.context, config.width}, true, {0.02});
  layout.close_chunk();
}

Embedding::Embedding(const ModelConfig& config, const ParameterLayout& layout, const Division& division, MemoryPlan& plan, bool here)
    : width_(config.width),
      plan_(&plan),
      value_rests_(here && !division.placement().values && layout.last_units(division.host.values).front()),
      sum_rests_(here && layout.last_units(division.host.state).front()) {
  if (!here) return;
  table_ = layout.table_rows("embedding.weight", 0);
  for (const TableRows& rows : table_)
    if (!value_rests_) route_.push_back(rows.unit);
  if (config.positions == Positions::learned) {
    position_table_ = layout.view("position.weight");
    route_.push_back(positions_ = static_cast<int>(layout.units_of(layout.parameter("position.weight").chunk).begin));
  }
  if (value_rests_ || sum_rests_) host_rows_ = plan.reserve("rows of an embedding", {rows_at_once, width_}, DType::f32, Lifetime::always, Memory::host);
}

Tensor Embedding::host_rows(std::int64_t count) const { return plan_->at(host_rows_, {rows_at_once, width_}).slice(0, count); }

void Embedding::look_up(const Rows& grain, const ParameterStore& store, Stream& stream) const {
  Stream& host = plan_->device().host().stream();
  for (std::int64_t begin = 0; begin < grain.x[0]; begin += rows_at_once) {
    const std::int64_t count = std::min(rows_at_once, grain.x[0] - begin);
    const Tensor rows = host_rows(count), ids = on_host(grain.tokens.slice(begin, count).host, plan_->device());
    rows.zero(host);
    for (const TableRows& table : table_) kernels::embedding_forward(rows, store.at_rest(table.unit).at(table.view), ids, table.first, host);
    plan_->staging().put(grain.x.slice(begin, count), std::span<const float>(rows.as<float>(), static_cast<std::size_t>(rows.count())), stream);
  }
}

void Embedding::forward(std::span<const Rows> group, ParameterStore& store, const ShardTree& tree, Stream& stream) const {
  for (const Rows& grain : group)
    if (value_rests_)
      look_up(grain, store, stream);
    else if (grain.x[0])
      grain.x.zero(stream);
  for (const TableRows& table : table_) {
    if (value_rests_) break;
    const Lease lease = store.fetch(table.unit);
    for (const Rows& grain : group)
      if (grain.x[0]) kernels::embedding_forward(grain.x, lease.at(table.view), grain.tokens.device, table.first, stream);
  }
  // One rank has each row, the others zeros: as whole numbers their sum is the row, also where it is -0.
  const auto as_whole_numbers = [](const Tensor& t) { return Tensor(t.data(), DType::i32, t.shape(), t.device()); };
  for (const Rows& grain : group)
    if (grain.x[0] && tree.shared()) all_reduce(*tree.ranks, as_whole_numbers(grain.x), as_whole_numbers(tree.exchange), stream);
  if (positions_ < 0) return;
  const Lease lease = store.fetch(positions_);
  for (const Rows& grain : group)
    if (grain.x[0]) kernels::embedding_add(grain.x, lease.at(position_table_), grain.positions.device, stream);
}

/// Adds rows of a gradient to the table's on the host.
void Embedding::add_at_rest(const Rows& grain, const Lease& lease, const TableRows& table, Stream& stream) const {
  for (std::int64_t begin = 0; begin < grain.x[0]; begin += rows_at_once) {
    const std::int64_t count = std::min(rows_at_once, grain.x[0] - begin);
    const Tensor part = host_rows(count);
    plan_->staging().get(std::span(part.as<float>(), static_cast<std::size_t>(part.count())), grain.x.slice(begin, count), stream);
    kernels::embedding_backward(lease.gradient_at(table.view), part, on_host(grain.tokens.slice(begin, count).host, plan_->device()), table.first,
                                plan_->device().host().stream());
  }
}

void Embedding::backward(std::span<const Rows> group, ParameterStore& store, Stream& stream) const {
  const auto each_grain = [&](int unit, bool at_rest, const auto& add) {
    for (const Rows& grain : group) {
      if (grain.x[0]) add(grain, store.gradient(unit, at_rest));
      store.reduce(unit);
    }
  };
  for (const TableRows& table : table_)
    each_grain(table.unit, sum_rests_, [&](const Rows& grain, const Lease& lease) {
      if (sum_rests_)
        add_at_rest(grain, lease, table, stream);
      else
        kernels::embedding_backward(lease.gradient_at(table.view), grain.x, grain.tokens.device, table.first, stream);
    });
  if (positions_ < 0) return;
  each_grain(positions_, false, [&](const Rows& grain, const Lease& lease) {
    kernels::embedding_backward(lease.gradient_at(position_table_), grain.x, grain.positions.device, 0, stream);
  });
}

}  // namespace collimate
