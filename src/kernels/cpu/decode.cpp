#include <algorithm>

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

constexpr Index key_tile = 16;

/// One query head over the positions of one sequence: an online softmax over tiles of 16 keys.
void decode_head(float* out, const float* query, const float* keys, const float* values, Index stride, Index positions, Index size) {
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(size));
  alignas(64) float total[largest_head];
  std::fill_n(total, tiles_of(size, lanes) * lanes, 0.0f);
  float top = -std::numeric_limits<float>::infinity(), weight = 0;
  for (Index begin = 0; begin < positions; begin += key_tile) {
    const Index count = std::min(key_tile, positions - begin);
    Lanes scores = splat(-std::numeric_limits<float>::infinity());
    for (Index t = 0; t < count; ++t) {
      const float* key = keys + (begin + t) * stride;
      Lanes dot{};
      for (Index c = 0; c < size; c += lanes) dot = fma(load(query + c, size - c), load(key + c, size - c), dot);
      scores[t] = sum(dot) * scale;
    }
    const float next = std::max(top, largest(scores));
    const Lanes p = exp(scores - splat(next));
    const Lanes shrink = exp(splat(top - next));
    weight = weight * shrink[0] + sum(p);
    top = next;
    for (Index c = 0; c < size; c += lanes) {
      Lanes sum_so_far = load(total + c) * shrink;
      for (Index t = 0; t < count; ++t) sum_so_far = fma(splat(p[t]), load(values + (begin + t) * stride + c, size - c), sum_so_far);
      store(total + c, sum_so_far);
    }
  }
  for (Index c = 0; c < size; c += lanes) store(out + c, load(total + c) / splat(weight), size - c);
}

}  // namespace

void attention_decode(float* out, const float* qkv, const Cache& cache, const std::int32_t* slots, const std::int32_t* lengths, Index sequences,
                      const Heads& heads) {
  const Index size = heads.size, width = heads.key_value * size;
  for (Index b = 0; b < sequences; ++b) {
    const Index at = (slots[b] * cache.capacity + lengths[b]) * width;
    const float* key = qkv + b * heads.columns() + heads.query * size;
    std::copy_n(key, width, cache.keys + at);
    std::copy_n(key + width, width, cache.values + at);
  }
  Index positions = 0;
  for (Index b = 0; b < sequences; ++b) positions += lengths[b] + 1;
  parallel_tiles(sequences * heads.query, positions * heads.query * size > serial_elements, [&](Index work) {
    const Index b = work / heads.query, h = work % heads.query;
    const Index key_head = (heads.first_query + h) / heads.group - heads.first_key_value;
    const Index at = slots[b] * cache.capacity * width + key_head * size;
    decode_head(out + (b * heads.query + h) * size, qkv + b * heads.columns() + h * size, cache.keys + at, cache.values + at, width,
                lengths[b] + 1, size);
  });
}

}  // namespace collimate::kernels::cpu
