#pragma once
#include <cstdint>

#include "collimate/kernels/head.hpp"
#include "kernels/cpu/numbers.hpp"

namespace collimate::kernels::cpu {

void logit_statistics(float* statistics, double* sums, const float* logits, const std::int32_t* targets, std::int64_t first, float temperature,
                      bool go_on, std::int64_t rows, std::int64_t columns);
void merge_statistics(float* statistics, const float* other, std::int64_t rows);
void finish_statistics(float* logprob, float* entropy, float* lse, const float* statistics, const std::int32_t* targets, std::int64_t rows);

struct LogitGradient {
  float* logits;
  const float* lse;
  const float* entropy;
  const std::int32_t* targets;
  const float* dlogprob;
  const float* dentropy;
  std::int64_t first;
  float temperature;
};
void logit_gradient(const LogitGradient& head, std::int64_t rows, std::int64_t columns);

void value_forward(float* values, const float* hidden, Numbers w, Numbers b, std::int64_t rows, std::int64_t columns);
void value_backward(float* dhidden, float* dw, float* db, const float* dvalues, const float* hidden, Numbers w, bool add,
                    std::int64_t rows, std::int64_t columns);

void sample_tokens(std::int32_t* tokens, float* logprobs, const float* logits, const double* uniforms, const Sampling& sampling,
                   std::int64_t rows, std::int64_t columns);

}  // namespace collimate::kernels::cpu
