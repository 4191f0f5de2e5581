#pragma once
#include <cmath>

#include "collimate/data/order.hpp"
#include "collimate/kernels/rows.hpp"
#include "collimate/rlhf/saved_models.hpp"
#include "rlhf/mpi/bench.hpp"

namespace collimate::rlhf {

/// Steps that are large and smooth in the gradient, so that an error shows and rounding does not; the rate falls to half.
inline OptimizerOptions smooth() {
  OptimizerOptions options{.rate = 0.03, .final_share = 0.5, .clip = 0.5};
  options.adamw.epsilon = 1e-2;
  return options;
}

inline void expect_close(const nlohmann::json& line, const std::string& key, double expected) {
  ASSERT_TRUE(line.contains(key)) << key;
  EXPECT_NEAR(line[key].get<double>(), expected, 1e-5 * (1 + std::abs(expected))) << key;
}

/// A model beside the one that a trainer trains: one rank, one sample at a time, no packing, its losses given as plain numbers.
class Twin {
 public:
  /// steps: of the stage; the rate falls to half along them.
  Twin(Session& session, const ModelConfig& config, Head head, const OptimizerOptions& options, int steps = 1)
      : session_(session), rate_(options.rate), steps_(steps), plan_(session.device), workspace_(plan_) {
    engine_ = std::make_unique<Engine>("twin", config, head, Division{}, EngineUse{.rows = 64, .most_grains = 100, .slots = 1, .capacity = 48},
                                       workspace_);
    workspace_.reserve();
    plan_.commit();
    engine_->prepare();
    engine_->store().initialise(static_cast<std::uint64_t>(session.options.run.seed));
    optimizer_ = std::make_unique<Optimizer>(engine_->store(), options.how(), options.clip);
  }
  Engine& engine() { return *engine_; }
  Dropout dropout;         ///< of the next step
  double sum_logprob = 0;  ///< of the learned tokens behind the prompts, as the last step saw them
  void load(const std::string& stage, const std::string& model) { SavedModels(session_.checkpoint(stage)).load(model, engine_->store()); }

  /// Log-probabilities of the tokens behind the prompt, and their entropies.
  struct Scored {
    std::vector<double> logprob, entropy;
  };
  Scored score(const Sequence& sequence, double temperature = 1) {
    const Row row(sequence);
    std::vector<float> logprob(row.tokens.size()), entropy(row.tokens.size());
    engine_->score(row.grain(), static_cast<float>(temperature), logprob, entropy);
    const auto first = sequence.prompt - 1, last = static_cast<std::int64_t>(sequence.tokens.size()) - 1;
    return {{logprob.begin() + first, logprob.begin() + last}, {entropy.begin() + first, entropy.begin() + last}};
  }
  /// The value at every token of the sequence.
  std::vector<double> values(const Sequence& sequence) {
    const Row row(sequence);
    std::vector<float> values(row.tokens.size());
    engine_->values(row.grain(), values);
    return {values.begin(), values.begin() + static_cast<std::ptrdiff_t>(sequence.tokens.size())};
  }

  /// An optimizer step: gradients of the loss with respect to log-probability and entropy of each token behind the prompt ...
  using Gradients = std::function<Scored(std::size_t sample)>;
  double step(const std::vector<Sequence>& sequences, double temperature, const Gradients& gradients) {
    sum_logprob = 0;
    return finish(sequences, [&](std::size_t i, const Row& row) {
      const Scored wanted = gradients(i);
      const std::int64_t begin = sequences[i].prompt - 1;
      engine_->forward_backward(row.grain(), static_cast<float>(temperature), dropout,
                                [&](std::int64_t first, auto logprob, auto, auto dlogprob, auto dentropy) {
                                  for (std::size_t r = 0; r < logprob.size(); ++r) {
                                    const std::int64_t t = first + static_cast<std::int64_t>(r) - begin;
                                    const bool learned = t >= 0 && t < static_cast<std::int64_t>(wanted.logprob.size());
                                    const auto& mask = sequences[i].mask;
                                    if (learned && (mask.empty() || mask[begin + 1 + t])) sum_logprob += logprob[r];
                                    dlogprob[r] = learned ? static_cast<float>(wanted.logprob[t]) : 0;
                                    dentropy[r] = learned ? static_cast<float>(wanted.entropy[t]) : 0;
                                  }
                                });
    });
  }
  /// ... or to the value of each token of the sequence. Both give the norm of the gradient.
  double step(const std::vector<Sequence>& sequences, const std::function<std::vector<double>(std::size_t sample)>& gradients) {
    return finish(sequences, [&](std::size_t i, const Row& row) {
      const std::vector<double> wanted = gradients(i);
      engine_->forward_backward(row.grain(), {}, [&](auto, auto gradient) { std::copy(wanted.begin(), wanted.end(), gradient.begin()); });
    });
  }

  /// The weights must be those of a checkpoint; they have moved by far more than the tolerance.
  void expect_saved(const std::string& stage, const std::string& model) {
    Twin saved(session_, engine_->transformer().config(), engine_->transformer().head(), {});
    const std::vector<float> start = saved.weights();
    saved.load(stage, model);
    const std::vector<float> mine = weights(), theirs = saved.weights();
    double off = 0, moved = 0;
    for (std::size_t i = 0; i < mine.size(); ++i) {
      off = std::max<double>(off, std::abs(mine[i] - theirs[i]));
      moved = std::max<double>(moved, std::abs(mine[i] - start[i]));
    }
    EXPECT_LT(off, 2e-5) << stage << " " << model << " moved by " << moved;
    EXPECT_GT(moved, 5e-3) << stage << " " << model;
  }

 private:
  struct Row {
    std::vector<std::int32_t> tokens, positions, targets, offsets;
    std::vector<std::int64_t> samples;
    explicit Row(const Sequence& sequence) {
      const auto n = static_cast<std::int64_t>(sequence.tokens.size());
      const auto rows = static_cast<std::size_t>(kernels::padded_rows(n));
      tokens = sequence.tokens;
      tokens.resize(rows, -1);
      positions.assign(rows, -1), targets.assign(rows, -1), samples.assign(rows, sequence.id);
      for (std::int64_t t = 0; t < n; ++t) positions[t] = static_cast<std::int32_t>(t);
      for (std::int64_t t = sequence.prompt; t < n; ++t) targets[t - 1] = sequence.tokens[t];
      offsets = {0, static_cast<std::int32_t>(n)};
    }
    Grain grain() const { return {tokens, positions, targets, offsets, samples}; }
  };
  template <class Run>
  double finish(const std::vector<Sequence>& sequences, const Run& run) {
    engine_->begin_step(static_cast<std::int64_t>(sequences.size()));
    for (std::size_t i = 0; i < sequences.size(); ++i) run(i, Row(sequences[i]));
    engine_->finish_step();
    const double left = 1 - static_cast<double>(taken_++) / steps_;
    return optimizer_->step(rate_ * (0.5 + 0.5 * left)).gradient_norm;
  }
  std::vector<float> weights() {
    std::vector<float> out;
    for (const Parameter& parameter : engine_->store().layout().parameters()) {
      std::vector<float> part(static_cast<std::size_t>(parameter.shape.count()));
      engine_->store().read(Kind::value, parameter.name, 0, part);
      out.insert(out.end(), part.begin(), part.end());
    }
    return out;
  }

  Session& session_;
  double rate_;
  int steps_, taken_ = 0;
  MemoryPlan plan_;
  Workspace workspace_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Optimizer> optimizer_;
};

}  // namespace collimate::rlhf
