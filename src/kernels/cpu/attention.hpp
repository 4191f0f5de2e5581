#pragma once
#include <cstdint>

#include "collimate/kernels/attention.hpp"

namespace collimate::kernels::cpu {

void rotary(float* qkv, const std::int32_t* positions, const float* table, const Heads& heads, bool inverse, std::int64_t rows);

/// The rows of the samples of one call.
struct Samples {
  const std::int32_t* offsets;
  std::int64_t count, rows;
};
void attention_forward(float* out, float* lse, const float* qkv, const Samples& samples, const Heads& heads);

struct AttentionBackward {
  float* dqkv;
  const float* dout;
  const float* out;
  const float* lse;
  const float* qkv;
  float* scratch;
};
void attention_backward(const AttentionBackward& tensors, const Samples& samples, const Heads& heads);

/// keys and values: [slots, key_value, capacity, size].
struct Cache {
  float* keys;
  float* values;
  std::int64_t slots, capacity;
};
void cache_write(const Cache& cache, const float* qkv, const Samples& samples, const std::int32_t* slots, const Heads& heads);
void attention_decode(float* out, const float* qkv, const Cache& cache, const std::int32_t* slots, const std::int32_t* lengths,
                      std::int64_t sequences, const Heads& heads);

}  // namespace collimate::kernels::cpu
