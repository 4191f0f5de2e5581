#pragma once
#include <span>

#include "collimate/kernels/ragged.hpp"

namespace collimate::kernels {

constexpr std::int64_t largest_head = 256;  ///< columns of a head, bounded by the tiles of one thread

/// Heads of one attention call. A row of qkv holds query heads, then key heads, then value heads, each of `size` columns.
/// Query head h reads key/value head `(first_query + h) / group - first_key_value`: with that a shard of the heads is a call
/// of its own. `group` is query heads per key/value head of the whole layer.
struct Heads {
  std::int64_t query = 0, key_value = 0, size = 0;
  std::int64_t group = 1, first_query = 0, first_key_value = 0;
  std::int64_t columns() const { return (query + 2 * key_value) * size; }
};

/// Rotary positions in place (Su et al., 2021; the half-split pairs (i, i + size/2) of Hugging Face): rotates the query and key
/// heads of qkv[R, columns] by angle positions[r] * frequencies[i], read from table[T, size]: size/2 cosines, then size/2 sines.
/// Rows with position -1 are left as they are. `inverse` rotates back: the backward.
void rotary(Tensor qkv, const Ragged& positions, Tensor table, const Heads& heads, bool inverse, Stream& stream);
/// Rows of that table in host memory, of the positions from `first` on: computed in fp64 and rounded to fp32, so that all back ends have the
/// same. rows[n * size]; frequencies[size/2]: radians per position.
void rotary_table(std::span<float> rows, std::int64_t first, std::span<const double> frequencies);

/// Causal attention within each sample, scale 1/sqrt(size). offsets[S+1] i32: sample s is rows [offsets[s], offsets[s+1]); rows at
/// or after offsets[S] are padding and give zero output. Blocked with an online softmax (Dao et al., 2022): no T x T matrix.
/// Tiles are counted from each sample's first token, so a sample's bits do not depend on its neighbours (R5).
/// out[R, query*size], lse[R, query]: log-sum-exp of the scaled scores.
void attention_forward(Tensor out, Tensor lse, Tensor qkv, const Ragged& offsets, const Heads& heads, Stream& stream);
/// dqkv[R, columns] is replaced. scratch[R, query] f32 receives sum(dout * out) per row and head.
void attention_backward(Tensor dqkv, Tensor dout, Tensor out, Tensor lse, Tensor qkv, const Ragged& offsets, Tensor scratch, const Heads& heads,
                        Stream& stream);

/// Copies the key and value heads of a packed prompt into the cache: rows of sample s go to the positions 0.. of slot slots[s] (i32).
/// keys, values: [slots, capacity, key_value*size], in a slot one head after the other, position by position.
void cache_write(Tensor keys, Tensor values, Tensor qkv, const Ragged& offsets, const Ragged& slots, const Heads& heads, Stream& stream);
/// One new token for each of B sequences: appends its key and value at lengths[b] (i32) of slot slots[b] (i32), then attends to
/// positions [0, lengths[b]]. out[B, query*size]; a row's bits depend on that row's sequence alone.
void attention_decode(Tensor out, Tensor qkv, Tensor keys, Tensor values, const Ragged& slots, const Ragged& lengths, const Heads& heads, Stream& stream);

}  // namespace collimate::kernels
