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

void Embedding::look_up(Tensor x, const ParameterStore& store, const kernels::Ragged& tokens, Stream& stream) const {
  Stream& host = plan_->device().host().stream();
  for (std::int64_t begin = 0; begin < x[0]; begin += rows_at_once) {
    const std::int64_t count = std::min(rows_at_once, x[0] - begin);
    const Tensor rows = host_rows(count), ids = on_host(tokens.slice(begin, count).host, plan_->device());
    rows.zero(host);
    for (const TableRows& table : table_) kernels::embedding_forward(rows, store.at_rest(table.unit).at(table.view), ids, table.first, host);
    plan_->staging().put(x.slice(begin, count), std::span<const float>(rows.as<float>(), static_cast<std::size_t>(rows.count())), stream);
  }
}

void Embedding::forward(Tensor x, ParameterStore& store, const kernels::Ragged& tokens, const kernels::Ragged& positions, const ShardTree& tree,
                        Stream& stream) const {
  const bool rows = x[0] > 0;
  if (value_rests_) {
    look_up(x, store, tokens, stream);
  } else {
    if (rows) x.zero(stream);
    for (const TableRows& table : table_) {
      const Lease lease = store.fetch_values(table.unit);
      if (rows) kernels::embedding_forward(x, lease.at(table.view), tokens.device, table.first, stream);
    }
  }
  // One rank has each row, the others zeros: as whole numbers their sum is the row, also where it is -0.
  const auto as_whole_numbers = [](const Tensor& t) { return Tensor(t.data(), DType::i32, t.shape(), t.device()); };
  if (rows && tree.shared()) all_reduce(*tree.ranks, as_whole_numbers(x), as_whole_numbers(tree.exchange), stream);
  if (positions_ < 0) return;
  const Lease lease = store.fetch_values(positions_);
  if (rows) kernels::embedding_add(x, lease.at(position_table_), positions.device, stream);
}

void Embedding::backward(Tensor dx, ParameterStore& store, const kernels::Ragged& tokens, const kernels::Ragged& positions, Stream& stream) const {
  const std::int64_t rows = dx[0];
  Stream& host = plan_->device().host().stream();
  for (const TableRows& table : table_) {
    if (sum_rests_) {
      const Lease lease = store.gradient_at_rest(table.unit);
      for (std::int64_t begin = 0; begin < rows; begin += rows_at_once) {
        const std::int64_t count = std::min(rows_at_once, rows - begin);
        const Tensor part = host_rows(count);
        plan_->staging().get(std::span(part.as<float>(), static_cast<std::size_t>(part.count())), dx.slice(begin, count), stream);
        kernels::embedding_backward(lease.gradient_at(table.view), part, on_host(tokens.slice(begin, count).host, plan_->device()), table.first, host);
      }
    } else {
      const Lease lease = store.fetch_gradient(table.unit);
      if (rows) kernels::embedding_backward(lease.gradient_at(table.view), dx, tokens.device, table.first, stream);
    }
    store.reduce(table.unit);
  }
  if (positions_ < 0) return;
  const Lease lease = store.fetch_gradient(positions_);
  if (rows) kernels::embedding_backward(lease.gradient_at(position_table_), dx, positions.device, 0, stream);
  store.reduce(positions_);
}

}  // namespace collimate
