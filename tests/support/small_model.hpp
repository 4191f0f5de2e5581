#pragma once
#include <memory>

#include "collimate/engine/engine.hpp"
#include "collimate/kernels/rows.hpp"
#include "support/reference_model.hpp"
#include "support/small_config.hpp"

namespace collimate::test {

/// One engine with memory of its own.
struct OneEngine {
  std::unique_ptr<Device> device = make_device();
  MemoryPlan plan{*device};
  Workspace workspace{plan};
  Engine engine;
  OneEngine(const ModelConfig& config, Head head, int shards, EngineUse use, std::uint64_t seed = 1)
      : OneEngine(config, head, Division{.shards = shards}, use, seed) {}
  OneEngine(const ModelConfig& config, Head head, const Division& division, EngineUse use, std::uint64_t seed = 1)
      : engine("model", config, head, division, use, workspace) {
    workspace.reserve();
    plan.commit();
    engine.prepare();
    for (ParameterStore* store : stores()) {
      store->initialise(seed);
      store->round_values();
    }
  }
  /// The engine's own parameters and its adapters.
  std::vector<ParameterStore*> stores() {
    return engine.adapters() ? std::vector{&engine.store(), engine.adapters()} : std::vector{&engine.store()};
  }
  Weights weights() {
    Weights out;
    for (const ParameterStore* store : stores())
      for (const Parameter& p : store->layout().parameters()) {
        std::vector<float> values(p.shape.count());
        store->read(Kind::value, p.name, 0, values);
        out[p.name] = Vector(values.begin(), values.end());
      }
    return out;
  }
};

/// Norm gains, biases and the second factors of adapters away from 1 and 0, so that no part of a formula hides.
inline void roughen(OneEngine& one) {
  const RandomKey key(3, Purpose::initialise);
  for (ParameterStore* store : one.stores()) {
    for (const Parameter& p : store->layout().parameters()) {
      if (p.initial.deviation > 0) continue;
      std::vector<float> values(p.shape.count());
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(p.initial.constant + 0.3 * key.normal(i, p.chunk));
      store->write(Kind::value, p.name, 0, values);
    }
    store->round_values();
  }
}

/// Samples packed by hand: every token but a sample's first is a target.
struct HandGrain {
  std::vector<std::int32_t> tokens, positions, targets, offsets{0};
  std::vector<std::int64_t> samples;
  explicit HandGrain(const std::vector<std::vector<int>>& sequences) {
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      for (std::size_t t = 0; t < sequences[s].size(); ++t) {
        tokens.push_back(sequences[s][t]);
        positions.push_back(static_cast<std::int32_t>(t));
        targets.push_back(t + 1 < sequences[s].size() ? sequences[s][t + 1] : -1);
        samples.push_back(static_cast<std::int64_t>(s));
      }
      offsets.push_back(static_cast<std::int32_t>(tokens.size()));
    }
    const auto rows = static_cast<std::size_t>(kernels::padded_rows(static_cast<std::int64_t>(tokens.size())));
    tokens.resize(rows, -1), positions.resize(rows, -1), targets.resize(rows, -1), samples.resize(rows, -1);
  }
  Grain view() const { return {tokens, positions, targets, offsets, samples}; }
};

inline std::vector<std::vector<int>> some_sequences(std::int64_t vocabulary, const std::vector<int>& lengths, std::uint64_t seed = 5) {
  const RandomKey key(seed, Purpose::data_order);
  std::vector<std::vector<int>> out;
  for (std::size_t s = 0; s < lengths.size(); ++s) {
    out.emplace_back();
    for (int t = 0; t < lengths[s]; ++t) out.back().push_back(static_cast<int>(key.below(vocabulary, s, t)));
  }
  return out;
}

}  // namespace collimate::test
