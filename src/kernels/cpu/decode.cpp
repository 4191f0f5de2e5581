#include <algorithm>
#include <cmath>

#include "kernels/cpu/attention.hpp"
#include "kernels/cpu/lanes.hpp"
#include "kernels/cpu/parallel.hpp"

namespace collimate::kernels::cpu {

using Index = std::int64_t;

void cache_write(const Cache& cache, const float* qkv, const Samples& samples, const std::int32_t* slots, const Heads& heads) {
  const Index width = heads.key_value * heads.size;
  parallel_tiles(samples.count, samples.rows * width > serial_elements, [&](Index s) {
    for (Index row = samples.offsets[s]; row < samples.offsets[s + 1]; ++row) {
      const Index at = (slots[s] * cache.capacity + row - samples.offsets[s]) * width;
      const float* key = qkv + row * heads.columns() + heads.query * heads.size;
      std::copy_n(key, width, cache.keys + at);
      std::copy_n(key + width, width, cache.values + at);
    }
  });
}

namespace {

constexpr Index key_tile = 64;

/// scores[0, 16) of 16 keys; those at or after `count` repeat the last one.
Lanes key_scores(const float* query, const float* keys, Index stride, Index count, Index size) {
  const float* rows[lanes];
#pragma GCC unroll 16
  for (Index t = 0; t < lanes; ++t) rows[t] = keys + std::min(t, count - 1) * stride;
  Lanes dots[lanes] = {};
  const auto step = [&](Index c, auto... left) {
    const Lanes q = load(query + c, left...);
#pragma GCC unroll 16
    for (Index t = 0; t < lanes; ++t) dots[t] = fma(q, load(rows[t] + c, left...), dots[t]);
  };
  Index c = 0;
  for (; c + lanes <= size; c += lanes) step(c);
  if (c < size) step(c, size - c);
  return sums(dots);
}

/// total[0, size) = total * shrink + sum over t of weights[t] values[t, :], in four sums over t = 0, 1, 2, 3 modulo 4.
void add_values(float* total, const float* weights, const float* values, Index stride, Index count, Index size, Lanes shrink) {
  const auto step = [&](Index c, auto... left) {
    Lanes part[4] = {};
    Index t = 0;
    for (; t + 4 <= count; t += 4)
#pragma GCC unroll 4
      for (Index i = 0; i < 4; ++i) part[i] = fma(splat(weights[t + i]), load(values + (t + i) * stride + c, left...), part[i]);
    for (; t < count; ++t) part[0] = fma(splat(weights[t]), load(values + t * stride + c, left...), part[0]);
    store(total + c, fma(load(total + c), shrink, (part[0] + part[1]) + (part[2] + part[3])));
  };
  Index c = 0;
  for (; c + lanes <= size; c += lanes) step(c);
  if (c < size) step(c, size - c);
}

/// One query head over the positions of one sequence: an online softmax over tiles of keys.
void decode_head(float* out, const float* query, const float* keys, const float* values, Index stride, Index positions, Index size) {
  const Lanes scale = splat(1.0f / std::sqrt(static_cast<float>(size))), minus_infinity = splat(-std::numeric_limits<float>::infinity());
  alignas(64) float total[largest_head] = {}, weights[key_tile];
  float top = minus_infinity[0], weight = 0;
  for (Index begin = 0; begin < positions; begin += key_tile) {
    const Index count = std::min(key_tile, positions - begin);
    Lanes most = splat(top), sum_of_tile{};
    for (Index t = 0; t < count; t += lanes) {
      const Lanes scores = key_scores(query, keys + (begin + t) * stride, stride, count - t, size) * scale;
      const Lanes seen = iota() < static_cast<std::int32_t>(count - t) ? scores : minus_infinity;
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
    add_values(total, weights, values + begin * stride, stride, count, size, shrink);
  }
  for (Index c = 0; c < size; c += lanes) store(out + c, load(total + c) / splat(weight), size - c);
}

}  // namespace

void attention_decode(float* out, const float* qkv, const Cache& cache, const std::int32_t* slots, const std::int32_t* lengths,
                      Index sequences, const Heads& heads) {
  const Index size = heads.size, width = heads.key_value * size;
  for (Index b = 0; b < sequences; ++b) {
    const Index at = (slots[b] * cache.capacity + lengths[b]) * width;
    const float* key = qkv + b * heads.columns() + heads.query * size;
    std::copy_n(key, width, cache.keys + at);
    std::copy_n(key + width, width, cache.values + at);
  }
  Index positions = 0;
  for (Index b = 0; b < sequences; ++b) positions += lengths[b] + 1;
  parallel_tiles(sequences * heads.query, positions * heads.query * size > 8 * serial_elements, [&](Index work) {
    const Index b = work / heads.query, h = work % heads.query;
    const Index key_head = (heads.first_query + h) / heads.group - heads.first_key_value;
    const Index at = slots[b] * cache.capacity * width + key_head * size;
    decode_head(out + (b * heads.query + h) * size, qkv + b * heads.columns() + h * size, cache.keys + at, cache.values + at, width,
                lengths[b] + 1, size);
  });
}

}  // namespace collimate::kernels::cpu
