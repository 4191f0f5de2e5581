#pragma once
#include <cmath>
#include <vector>

#include "collimate/kernels/attention.hpp"

namespace collimate::kernels {

struct AttentionResult {
  std::vector<double> out, lse;
};

/// Causal attention of packed samples by plain loops in double.
inline AttentionResult attention_oracle(const std::vector<double>& qkv, const std::vector<std::int32_t>& offsets, std::int64_t rows,
                                        const Heads& heads) {
  const auto size = heads.size, columns = heads.columns();
  AttentionResult result{std::vector<double>(rows * heads.query * size), std::vector<double>(rows * heads.query)};
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
    for (std::int64_t i = offsets[s]; i < offsets[s + 1]; ++i)
      for (std::int64_t h = 0; h < heads.query; ++h) {
        const auto kv = (heads.first_query + h) / heads.group - heads.first_key_value;
        std::vector<double> weights;
        double total = 0;
        for (std::int64_t j = offsets[s]; j <= i; ++j) {
          double score = 0;
          for (std::int64_t c = 0; c < size; ++c)
            score += qkv[i * columns + h * size + c] * qkv[j * columns + (heads.query + kv) * size + c];
          weights.push_back(std::exp(score / std::sqrt(static_cast<double>(size))));
          total += weights.back();
        }
        result.lse[i * heads.query + h] = std::log(total);
        for (std::int64_t j = offsets[s]; j <= i; ++j)
          for (std::int64_t c = 0; c < size; ++c)
            result.out[(i * heads.query + h) * size + c] +=
                weights[j - offsets[s]] / total * qkv[j * columns + (heads.query + heads.key_value + kv) * size + c];
      }
  return result;
}

}  // namespace collimate::kernels
