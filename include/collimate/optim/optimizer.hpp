#pragma once
#include <string>
#include <vector>

#include "collimate/kernels/optimizer.hpp"
#include "collimate/params/store.hpp"

namespace collimate {

/// Rate of step 1, 2, ...: a linear warm-up from peak/warmup to the peak, then the shape, from the peak at the first step after the warm-up
/// towards final_share * peak, which the step after the last would have: so the last step learns also where final_share is 0.
struct LearningRate {
  double peak = 0;
  std::int64_t warmup = 0, steps = 1;
  std::string shape = "linear";  ///< constant, linear or cosine
  double final_share = 0;
  double at(std::int64_t step) const;
};

/// What a step did; equal on every rank.
struct StepReport {
  double gradient_norm = 0;  ///< before clipping
  double rate = 0;
};

/// AdamW over the flat ranges of a store.
class Optimizer {
 public:
  /// how: betas, epsilon, form and decay; rate, step and scale are set each step. clip: largest global gradient norm (0: none).
  Optimizer(ParameterStore& store, kernels::AdamW how, double clip);
  /// One update, of what this rank updates, from the step's gradient; what rests on the host may be pending afterwards (ParameterStore::step), so the
  /// optimizer must live as long as its store is used. Collective, and not a step to agree on: what fails on one rank is agreed on inside, apart from
  /// the messages. Throws an AgreedError (exit 1) where the gradient norm is not finite, before anything is changed.
  StepReport step(double rate);
  std::int64_t steps() const { return how_.step - 1; }
  void set_steps(std::int64_t steps) { how_.step = steps + 1; }

 private:
  struct Range {
    std::int64_t begin, count;
    bool decays;
  };
  void update(const ParameterStore::Piece& piece, kernels::AdamW how) const;
  ParameterStore* store_;
  kernels::AdamW how_;
  double clip_;
  std::vector<Range> ranges_;
};

}  // namespace collimate
