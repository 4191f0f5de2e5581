#include <algorithm>
#include <cmath>

#include "kernels/cpu/attention.hpp"
#include "kernels/cpu/lanes.hpp"
#include "kernels/cpu/parallel.hpp"

namespace collimate::kernels::cpu {

using Index = std::int64_t;

namespace {

/// Where a slot keeps the positions of a key/value head: one after the other, so that a decoding head reads one stream.
Index place(const Cache& cache, const Heads& heads, Index slot, Index head) {
  return (slot * heads.key_value + head) * cache.capacity * heads.size;
}

/// Copies the keys and values of one row of qkv to a position of a slot.
void append(const Cache& cache, const float* row, const Heads& heads, Index slot, Index position) {
  const float* key = row + heads.query * heads.size;
  for (Index head = 0; head < heads.key_value; ++head, key += heads.size) {
    const Index at = place(cache, heads, slot, head) + position * heads.size;
    std::copy_n(key, heads.size, cache.keys + at);
    std::copy_n(key + heads.key_value * heads.size, heads.size, cache.values + at);
  }
}

}  // namespace

void cache_write(const Cache& cache, const float* qkv, const Samples& samples, const std::int32_t* slots, const Heads& heads) {
  parallel_tiles(samples.count, samples.rows * heads.key_value * heads.size > serial_elements, [&](Index s) {
    for (Index row = samples.offsets[s]; row < samples.offsets[s + 1]; ++row)
      append(cache, qkv + row * heads.columns(), heads, slots[s], row - samples.offsets[s]);
  });
}

namespace {

constexpr Index key_tile = 64;

/// scores[0, 16) of 16 keys; those at or after `count` repeat the last one.
Lanes key_scores(const float* query, const float* keys, Index count, Index size) {
  Lanes dots[lanes] = {};
  constexpr Index together = lanes / (parts * parts);  // sums that fit into the registers
  const auto all = [&](const auto& row) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (Index first = 0; first < lanes; first += together) {
      const auto step = [&](Index c, auto... left) __attribute__((always_inline)) {
        const Lanes q = in_register(load(query + c, left...));
#pragma GCC unroll 16
        for (Index t = first; t < first + together; ++t) dots[t] = fma(q, load(keys + row(t) * size + c, left...), dots[t]);
      };
      Index c = 0;
      for (; c + lanes <= size; c += lanes) step(c);
      if (c < size) step(c, size - c);
    }
  };
  if (count >= lanes)
    all([](Index t) { return t; });
  else
    all([&](Index t) { return std::min(t, count - 1); });
  return sums(dots);
}

/// total[0, Wide * 16) = total * shrink + sum over t of weights[t] values[t, :], in four sums over t = 0, 1, 2, 3 modulo 4; `left`: the
/// columns that exist, where these are fewer.
template <Index Wide>
[[gnu::always_inline]] inline void add_values(float* total, const float* weights, const float* values, Index count, Index size,
                                              Lanes shrink, auto... left) {
  Lanes part[4][Wide] = {};
  const auto step = [&](Index t, Index sum) __attribute__((always_inline)) {
    const Lanes weight = in_register(splat(weights[t]));
#pragma GCC unroll 4
    for (Index c = 0; c < Wide; ++c) part[sum][c] = fma(weight, load(values + t * size + c * lanes, left...), part[sum][c]);
  };
  Index t = 0;
  for (; t + 4 <= count; t += 4)
#pragma GCC unroll 4
    for (Index i = 0; i < 4; ++i) step(t + i, i);
  for (; t < count; ++t) step(t, 0);
#pragma GCC unroll 4
  for (Index c = 0; c < Wide; ++c)
    store(total + c * lanes, fma(load(total + c * lanes), shrink, (part[0][c] + part[1][c]) + (part[2][c] + part[3][c])));
}

/// The same for all columns of a head.
void add_values(float* total, const float* weights, const float* values, Index count, Index size, Lanes shrink) {
  Index c = 0;
  if constexpr (one_register) {  // else the sums of more than sixteen columns do not fit into the registers
    for (; c + 4 * lanes <= size; c += 4 * lanes) add_values<4>(total + c, weights, values + c, count, size, shrink);
    for (; c + 2 * lanes <= size; c += 2 * lanes) add_values<2>(total + c, weights, values + c, count, size, shrink);
  }
  for (; c + lanes <= size; c += lanes) add_values<1>(total + c, weights, values + c, count, size, shrink);
  if (c < size) add_values<1>(total + c, weights, values + c, count, size, shrink, size - c);
}

/// One query head over the positions of one sequence: an online softmax over tiles of keys.
void decode_head(float* out, const float* query, const float* keys, const float* values, Index positions, Index size) {
  const Lanes scale = splat(1.0f / std::sqrt(static_cast<float>(size))), minus_infinity = splat(-std::numeric_limits<float>::infinity());
  alignas(64) float total[largest_head] = {}, weights[key_tile];
  float top = minus_infinity[0], weight = 0;
  for (Index begin = 0; begin < positions; begin += key_tile) {
    const Index count = std::min(key_tile, positions - begin);
    Lanes most = splat(top), sum_of_tile{};
    for (Index t = 0; t < count; t += lanes) {
      const Lanes scores = key_scores(query, keys + (begin + t) * size, count - t, size) * scale;
      const Lanes seen = select(before(count - t), scores, minus_infinity);
      store(weights + t, seen);
      most = max(seen, most);
    }
    const float next = largest(most);
    for (Index t = 0; t < count; t += lanes) {
      const Lanes p = exp(load(weights + t) - splat(next));
      store(weights + t, p);
      sum_of_tile += p;
    }
    const Lanes shrink = exp(splat(top - next));
    weight = weight * shrink[0] + sum(sum_of_tile);
    top = next;
    add_values(total, weights, values + begin * size, count, size, shrink);
  }
  for (Index c = 0; c < size; c += lanes) store(out + c, load(total + c) / splat(weight), size - c);
}

}  // namespace

void attention_decode(float* out, const float* qkv, const Cache& cache, const std::int32_t* slots, const std::int32_t* lengths,
                      Index sequences, const Heads& heads) {
  const Index size = heads.size;
  for (Index b = 0; b < sequences; ++b) append(cache, qkv + b * heads.columns(), heads, slots[b], lengths[b]);
  Index positions = 0;
  for (Index b = 0; b < sequences; ++b) positions += lengths[b] + 1;
  parallel_tiles(sequences * heads.query, positions * heads.query * size > 8 * serial_elements, [&](Index work) {
    const Index b = work / heads.query, h = work % heads.query;
    const Index key_head = (heads.first_query + h) / heads.group - heads.first_key_value;
    const Index at = place(cache, heads, slots[b], key_head);
    decode_head(out + (b * heads.query + h) * size, qkv + b * heads.columns() + h * size, cache.keys + at, cache.values + at,
                lengths[b] + 1, size);
  });
}

}  // namespace collimate::kernels::cpu
