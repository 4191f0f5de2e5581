#pragma once
#include "collimate/optim/optimizer.hpp"
#include "support/small_model.hpp"

namespace collimate::test {

/// A task that a small model learns: say again what was said before the separator. Sequences are `letters`, separator, the same letters.
struct CopyTask {
  std::int64_t vocabulary = 12, letters = 5, samples_per_grain = 8;
  std::uint64_t seed = 31;

  HandGrain grain(std::int64_t step, std::int64_t index) const {
    const RandomKey key(seed, Purpose::data_order);
    std::vector<std::vector<int>> sequences(samples_per_grain);
    const std::int64_t first = index * samples_per_grain;
    for (std::int64_t s = 0; s < samples_per_grain; ++s) {
      auto& sequence = sequences[s];
      for (std::int64_t i = 0; i < letters; ++i)
        sequence.push_back(
            1 + static_cast<int>(key.below(vocabulary - 1, first + s, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(step))));
      sequence.push_back(0);
      for (std::int64_t i = 0; i < letters; ++i) sequence.push_back(sequence[i]);
    }
    HandGrain grain(sequences);
    for (std::int64_t r = 0; r < grain.offsets.back(); ++r) {
      if (grain.positions[r] < letters) grain.targets[r] = -1;  // what was said first cannot be known
      grain.samples[r] += first;
    }
    return grain;
  }
  ModelConfig llama() const {
    ModelConfig c;
    c.vocabulary = vocabulary, c.context = 2 * letters + 1, c.layers = 2, c.width = 32, c.heads = 4, c.kv_heads = 4, c.head_size = 8,
    c.mlp = 64;
    return c;
  }
  ModelConfig gpt2() const {
    ModelConfig c = llama();
    c.norm = Norm::layer, c.activation = Activation::gelu, c.positions = Positions::learned, c.bias = true;
    return c;
  }
};

/// A learner of a copy task: one engine and its optimizer.
struct Pupil {
  CopyTask task;
  OneEngine one;
  Optimizer optimizer;
  Pupil(const CopyTask& task, const ModelConfig& config, int shards, std::int64_t most_grains, int data_ranks = 1)
      : task(task),
        one(config, Head::policy, shards, {.rows = 256, .most_grains = most_grains}, 1, data_ranks),
        optimizer(one.engine.store(), {.epsilon = 1e-8, .decay = 0.01}, 1) {}

  /// Adds the gradient of one grain's mean loss per target, divided by `grains`; returns the mean loss.
  double add_grain(std::int64_t step, std::int64_t index, std::int64_t grains, double dropout) {
    const HandGrain grain = task.grain(step, index);
    const double targets = static_cast<double>(task.samples_per_grain * task.letters);
    double loss = 0;
    one.engine.forward_backward(grain.view(), 1, {dropout, 9, step}, [&](std::int64_t first, auto logprob, auto, auto dlogprob, auto) {
      for (std::size_t i = 0; i < logprob.size(); ++i) {
        if (grain.targets[first + i] < 0) continue;
        loss -= logprob[i] / targets;
        dlogprob[i] = static_cast<float>(-1 / (targets * static_cast<double>(grains)));
      }
    });
    return loss;
  }
  /// One optimizer step on this rank's part of the grains; the mean loss over this rank's grains. `drop`: a grain left out by its rank.
  double step(std::int64_t number, std::int64_t grains, Communicator& ranks, double rate, double dropout = 0, std::int64_t drop = -1) {
    const Part run = part_of(grains, ranks.rank(), ranks.size());
    double loss = 0;
    one.engine.begin_step(run.begin);
    for (std::int64_t g = run.begin; g < run.begin + run.count; ++g) {
      if (g == drop) {
        one.engine.store().open_grain();
        one.engine.store().close_grain();
        continue;
      }
      loss += add_grain(number, g, grains, dropout) / static_cast<double>(run.count);
    }
    one.engine.finish_step(ranks, grains);
    optimizer.step(rate, one.device->stream());
    return loss;
  }
  std::uint64_t hash() { return hash_of(one.engine.store().value(), one.device->stream()); }
};

}  // namespace collimate::test
