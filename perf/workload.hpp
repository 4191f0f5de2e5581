#pragma once
#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "collimate/base/timer.hpp"
#include "collimate/engine/engine.hpp"

namespace collimate::perf {

struct Workload {
  ModelConfig config;
  std::int64_t batch, length, rounds;  // training: batch x length tokens a step
};

inline Workload workload(const std::string& name) {
  ModelConfig c;
  c.family = "gpt2", c.norm = Norm::layer, c.activation = Activation::gelu, c.positions = Positions::learned, c.bias = Biases::all();
  if (name == "gpt2") {
    c.vocabulary = 50257, c.context = 1024, c.layers = 12, c.width = 768, c.heads = c.kv_heads = 12, c.head_size = 64, c.mlp = 3072;
    return {c, 4, 256, 3};
  }
  require(name == "small", "the models are gpt2 and small, not '{}'", name);
  c.vocabulary = 512, c.context = 256, c.layers = 4, c.width = 128, c.heads = c.kv_heads = 4, c.head_size = 32, c.mlp = 512;
  return {c, 32, 128, 20};
}

/// Samples [first, first + count) of `length` tokens; every one but the last of a sample has a target, and so has the last, as the peer's do.
struct Tokens {
  std::vector<std::int32_t> tokens, positions, targets, offsets{0};
  std::vector<std::int64_t> samples;
  Tokens(const Workload& w, std::int64_t first, std::int64_t count) {
    const RandomKey key(7, Purpose::data_order);
    for (std::int64_t s = first; s < first + count; ++s) {
      for (std::int64_t t = 0; t < w.length; ++t) {
        tokens.push_back(static_cast<std::int32_t>(key.below(w.config.vocabulary, s, t)));
        targets.push_back(static_cast<std::int32_t>(key.below(w.config.vocabulary, s, t + 1)));
        positions.push_back(static_cast<std::int32_t>(t));
        samples.push_back(s);
      }
      offsets.push_back(static_cast<std::int32_t>(tokens.size()));
    }
  }
  Grain view() const { return {tokens, positions, targets, offsets, samples}; }
};

/// Prompts of random tokens, numbered from 0.
inline std::vector<Prompt> some_prompts(const Workload& w, std::int64_t count, std::int64_t tokens) {
  std::vector<Prompt> prompts;
  const RandomKey key(7, Purpose::data_order);
  for (std::int64_t s = 0; s < count; ++s) {
    prompts.emplace_back(std::vector<std::int32_t>{}, static_cast<std::uint64_t>(s));
    for (std::int64_t t = 0; t < tokens; ++t) prompts.back().tokens.push_back(static_cast<std::int32_t>(key.below(w.config.vocabulary, s, t)));
  }
  return prompts;
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

inline double seconds_of(const std::function<void()>& call) {
  const Stopwatch watch;
  call();
  return watch.seconds();
}

}  // namespace collimate::perf
