#pragma once
#include <numeric>

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
    c.family = "gpt2", c.norm = Norm::layer, c.activation = Activation::gelu, c.positions = Positions::learned, c.bias = Biases::all();
    return c;
  }
};

/// A learner of a copy task: one engine and its optimizer.
struct Pupil {
  CopyTask task;
  OneEngine one;
  Optimizer optimizer;
  Pupil(const CopyTask& task, const ModelConfig& config, const Division& division, std::int64_t most_grains, RecomputePlan recompute = {},
        DType values = DType::f32)
      : task(task),
        one(config, Head::policy, division, {.rows = 256, .most_grains = most_grains, .recompute = recompute, .values = values}),
        optimizer(one.engine.store(), {.epsilon = 1e-8, .decay = 0.01}, 1) {}

  /// The gradients of some grains' mean losses per target, divided by `grains`; their losses, where this rank has the model's end.
  /// A grain of -1, or `drop`, is left out.
  std::vector<double> add_grains(std::int64_t step, const std::vector<std::int64_t>& mine, std::int64_t grains, double dropout,
                                 std::int64_t drop = -1) {
    std::vector<HandGrain> hand;
    std::vector<Grain> views;
    for (const std::int64_t g : mine) hand.push_back(task.grain(step, std::max<std::int64_t>(0, g)));
    for (std::size_t i = 0; i < mine.size(); ++i) views.push_back(mine[i] < 0 ? Grain{} : hand[i].view());
    const double targets = static_cast<double>(task.samples_per_grain * task.letters);
    std::vector<double> losses(mine.size());
    one.engine.forward_backward(views, 1, {dropout, 9, step},
                                [&](std::size_t g, std::int64_t, auto logprob, auto, auto dlogprob, auto) {
                                  for (std::size_t i = 0; i < logprob.size(); ++i) {
                                    losses[g] -= logprob[i] / targets;
                                    if (mine[g] != drop) dlogprob[i] = static_cast<float>(-1 / (targets * static_cast<double>(grains)));
                                  }
                                });
    return losses;
  }
  /// One optimizer step of `grains` grains; the mean loss over this rank's. `drop`: a grain whose gradient is left out.
  double step(std::int64_t number, std::int64_t grains, double rate, double dropout = 0, std::int64_t drop = -2) {
    const std::vector<std::int64_t> mine = one.engine.store().division().grains(grains);
    one.engine.begin_step(grains);
    const std::vector<double> losses = add_grains(number, mine, grains, dropout, drop);
    one.engine.finish_step();
    optimizer.step(rate);
    return losses.empty() ? 0 : std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
  }
  /// The state: parameters and both moments, whatever the division. Collective.
  std::vector<std::uint64_t> state() const {
    std::vector<std::uint64_t> out;
    const ParameterStore& store = one.engine.store();
    for (const Kind kind : {Kind::value, Kind::first_moment, Kind::second_moment}) out.push_back(combine(store.layout(), store.hashes(kind)));
    return out;
  }
  std::uint64_t hash() const { return state()[0]; }
};

}  // namespace collimate::test
