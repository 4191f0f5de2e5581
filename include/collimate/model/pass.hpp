#pragma once
#include <vector>

#include "collimate/base/random.hpp"
#include "collimate/collectives/all_reduce.hpp"
#include "collimate/device/arena.hpp"
#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/ragged.hpp"
#include "collimate/params/store.hpp"

namespace collimate {

/// Samples packed back to back: the unit that one model replica computes (numerics contract R1). R rows, the real tokens of S samples
/// first, then padding rows with token and position -1. Index arrays are in both memories, all else on the device.
struct GrainView {
  kernels::Ragged tokens;     ///< [R]
  kernels::Ragged positions;  ///< [R], from 0 within each sample
  Tensor targets;    ///< [R] i32, the token whose log-probability row r gives, or -1
  Tensor samples;    ///< [R] i64, global sample number (the key of dropout)
  kernels::Ragged offsets;    ///< [S+1]
  std::int64_t rows() const { return tokens.count(); }
};

/// Keys and values of the sequences being generated: one pair of tensors [slots, capacity, kv_heads_v * D] per layer and virtual shard.
struct KvCache {
  std::vector<std::vector<Tensor>> keys, values;  ///< [layer][shard]
};

/// What every layer of one forward and backward needs to know.
struct Pass {
  Stream& stream;
  const GrainView& grain;
  double dropout = 0;                  ///< 0 in every mode but training
  double adapter_dropout = 0;          ///< of the inputs of adapters
  RandomKey key{0, Purpose::dropout};  ///< of this optimizer step
  KvCache* cache = nullptr;            ///< where a prompt's keys and values go, if anywhere
  kernels::Ragged slots = {};          ///< [S], the cache slot of each sample
};

/// The sum over the virtual shards of a layer (numerics contract R2): this rank's shards first, then the ranks that share the layer, one
/// binary tree over all of them.
struct ShardTree {
  int shards = 1;                 ///< of this rank
  Communicator* ranks = nullptr;  ///< those that have the others; null: none
  bool ordered = true;            ///< false: numerics.mode = fast
  std::vector<Tensor> room = {};  ///< log2(shards) tensors of the columns and at least the rows of what is summed
  Tensor exchange = {};           ///< flat: room for the other ranks' partial results, where there are any
  bool shared() const { return ranks && ranks->size() > 1; }
  /// This tree with an exchange for tensors of so many elements; longer ones take more rounds.
  ShardTree with_exchange(Arena& arena, std::int64_t elements) const {
    ShardTree tree = *this;
    if (shared()) tree.exchange = arena.take({all_reduce_room(elements, ranks->size())});
    return tree;
  }
};

/// Adds partial results in a binary tree. compute(v, out) writes partial v of this rank's shards.
template <class Compute>
void sum_over_own_shards(Tensor out, const ShardTree& tree, int shards, Stream& stream, const Compute& compute, int first, std::size_t depth) {
  if (shards == 1) return compute(first, out);
  sum_over_own_shards(out, tree, shards / 2, stream, compute, first, depth + 1);
  const Tensor right = tree.room[depth].slice(0, out[0]);
  sum_over_own_shards(right, tree, shards / 2, stream, compute, first + shards / 2, depth + 1);
  kernels::add(out, out, right, stream);
}
template <class Compute>
void sum_over_shards(Tensor out, const ShardTree& tree, Stream& stream, const Compute& compute) {
  sum_over_own_shards(out, tree, tree.shards, stream, compute, 0, 0);
  if (!tree.shared()) return;
  if (tree.ordered)
    all_reduce(*tree.ranks, out, tree.exchange, stream);
  else
    tree.ranks->all_reduce_unordered(out, stream);
}

}  // namespace collimate
