#pragma once
#include <vector>

#include "collimate/base/random.hpp"
#include "collimate/device/arena.hpp"
#include "collimate/kernels/elementwise.hpp"
#include "collimate/params/store.hpp"

namespace collimate {

/// Samples packed back to back: the unit that one model replica computes (numerics contract R1). R rows, the real tokens of S samples
/// first, then padding rows with token and position -1. All tensors are on the device.
struct GrainView {
  Tensor tokens;     ///< [R] i32
  Tensor positions;  ///< [R] i32, from 0 within each sample
  Tensor targets;    ///< [R] i32, the token whose log-probability row r gives, or -1
  Tensor samples;    ///< [R] i64, global sample number (the key of dropout)
  Tensor offsets;    ///< [S+1] i32
  std::int64_t rows() const { return tokens[0]; }
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
  RandomKey key{0, Purpose::dropout};  ///< of this optimizer step
  KvCache* cache = nullptr;            ///< where a prompt's keys and values go, if anywhere
  Tensor slots = {};                   ///< [S] i32, the cache slot of each sample
};

/// Adds the V partial results of a sum over virtual shards in a binary tree (numerics contract R2). compute(v, out) writes partial v.
/// scratch: log2(V) tensors of out's columns and at least its rows.
template <class Compute>
void sum_over_shards(Tensor out, const std::vector<Tensor>& scratch, int shards, Stream& stream, const Compute& compute, int first = 0,
                     std::size_t depth = 0) {
  if (shards == 1) return compute(first, out);
  sum_over_shards(out, scratch, shards / 2, stream, compute, first, depth + 1);
  const Tensor right = scratch[depth].slice(0, out[0]);
  sum_over_shards(right, scratch, shards / 2, stream, compute, first + shards / 2, depth + 1);
  kernels::add(out, out, right, stream);
}

}  // namespace collimate
