#pragma once
#include <span>
#include <vector>

#include "collimate/model/config.hpp"
#include "collimate/model/pass.hpp"

namespace collimate {

/// Tokens and, where they are learned, positions to rows of width C. A table that rests on the host whole is looked up there, and only the rows
/// of the tokens travel; so do those of its gradient where the sum rests there. Otherwise the table is fetched unit by unit.
class Embedding {
 public:
  /// here: whether this stage has it.
  Embedding(const ModelConfig& config, const ParameterLayout& layout, const Division& division, MemoryPlan& plan, bool here);
  /// Opens and closes its chunks. unit: see ParameterLayout::open_chunk.
  static void declare(const ModelConfig& config, ParameterLayout& layout, Presence table, Presence positions, std::int64_t unit);

  const std::vector<int>& route() const { return route_; }  ///< the units that forward fetches
  /// The rows of a grain: x[R,C] to write, or dx[R,C].
  struct Rows {
    Tensor x;
    const kernels::Ragged& tokens;
    const kernels::Ragged& positions;
  };
  /// Writes x of each grain of a group. The ranks that share the vocabulary take part; a grain without rows fetches all the same.
  void forward(std::span<const Rows> group, ParameterStore& store, const ShardTree& tree, Stream& stream) const;
  /// Writes and reduces the gradients of the tables from dx of each grain.
  void backward(std::span<const Rows> group, ParameterStore& store, Stream& stream) const;

 private:
  void look_up(const Rows& grain, const ParameterStore& store, Stream& stream) const;
  void add_at_rest(const Rows& grain, const Lease& lease, const TableRows& table, Stream& stream) const;
  Tensor host_rows(std::int64_t count) const;
  std::int64_t width_;
  MemoryPlan* plan_;
  bool value_rests_, sum_rests_;  // on the host, of the whole table: it is the first of all chunks
  std::vector<TableRows> table_;  // of this rank's shards
  int positions_ = -1;            // the unit, where they are learned
  View position_table_;
  std::vector<int> route_;
  Slot host_rows_;
};

}  // namespace collimate
