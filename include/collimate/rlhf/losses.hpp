#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "collimate/rlhf/kl_estimator.hpp"

// Losses of one token, of one value and of one pair of scores. Each function takes one chunk of R rows (a block of the
// log-probability head, say), writes the gradient of every row and returns sums that add up over chunks; a row's result depends on
// that row alone. Arithmetic is fp64, gradients are rounded to fp32 once.
//
//   const auto counts = count_tokens(lengths_of_all_samples_of_the_optimizer_step);
//   weight[row] = token_weight(Aggregation::token_mean, length_of_its_sample, counts);   // 0 in rows that do not count
//   PolicyTotals totals;                                                                 // one per grain, say
//   for each chunk: totals += policy_loss({logprob, entropy, old_logprob, advantage, weight}, options, dlogprob, dentropy);
//
// Rows of weight 0 get gradient 0 and enter no sum, whatever they hold (also NaN). All spans of one call have R elements.

namespace collimate::rlhf {

// ---- weights -------------------------------------------------------------------------------------------------------------------

/// What a loss averages over: all tokens of the optimizer step; samples, each the mean of its tokens; samples, each the sum.
enum class Aggregation { token_mean, sequence_mean_token_mean, sequence_mean_token_sum };

/// Denominators of one optimizer step, over all ranks and accumulation steps.
struct TokenCounts {
  std::int64_t tokens = 0;
  std::int64_t sequences = 0;  ///< samples with at least one token that counts
};

/// `lengths`: tokens that count in each sample of the optimizer step; samples without any are left out.
TokenCounts count_tokens(std::span<const std::int64_t> lengths);
/// The weight of each counting token of a sample with `length` of them; 0 if there is none.
float token_weight(Aggregation aggregation, std::int64_t length, const TokenCounts& counts);

// ---- supervised ----------------------------------------------------------------------------------------------------------------

/// Sums over the rows of weight > 0; `loss` is weighted, everything else counts a row once.
struct SupervisedTotals {
  double loss = 0;     ///< sum of -weight * logprob
  double nats = 0;     ///< sum of -logprob: nats / tokens is the log of the perplexity
  std::int64_t tokens = 0;
  std::int64_t first_bad_row = -1;  ///< first row (of its own chunk) with a loss that is NaN or infinite, else -1
  SupervisedTotals& operator+=(const SupervisedTotals& other);
};

/// Cross entropy: loss = -weight * logprob, dlogprob = -weight.
SupervisedTotals supervised_loss(std::span<const float> logprob, std::span<const float> weight, std::span<float> dlogprob);

// ---- policy --------------------------------------------------------------------------------------------------------------------

struct PolicyLossOptions {
  double clip_low = 0.2;   ///< the ratio is clipped to [1 - clip_low, 1 + clip_high]
  double clip_high = 0.2;
  double dual_clip = 3;    ///< c > 1: the loss of a negative advantage A is at most -c A (Ye et al. 2019); 0: off
  double entropy_coefficient = 0;
  double kl_coefficient = 0;  ///< of the divergence from the reference as a loss; 0: off
  KlEstimator kl_estimator = KlEstimator::k2;
};

/// Rows of the policy loss. `reference_logprob` may be empty where kl_coefficient is 0.
struct PolicyRows {
  std::span<const float> logprob, entropy;          ///< of the policy in training
  std::span<const float> old_logprob, advantage;    ///< of the policy that sampled
  std::span<const float> weight;
  std::span<const float> reference_logprob = {};
};

/// Sums over the rows of weight > 0; `loss` is weighted, everything else counts a row once: divide by `tokens`.
struct PolicyTotals {
  double loss = 0;           ///< all of it, entropy bonus and KL term included
  double entropy = 0;
  double approx_kl = 0;      ///< ratio - 1 - log ratio: the divergence of the new policy from the one that sampled
  double reference_kl = 0;   ///< kl_estimator's value, where kl_coefficient is not 0
  double max_abs_log_ratio = 0;  ///< exactly 0 on the first minibatch of an iteration
  std::int64_t tokens = 0, clipped = 0, dual_clipped = 0;
  std::int64_t first_bad_row = -1;  ///< first row (of its own chunk) with a NaN or an infinity in loss or gradient, else -1
  PolicyTotals& operator+=(const PolicyTotals& other);
};

/// PPO's clipped surrogate (Schulman et al. 2017), with rho = exp(logprob - old_logprob), the exponent held at +-log_ratio_limit:
///   weight * (max(-A rho, -A clip(rho)) - entropy_coefficient * entropy + kl_coefficient * kl)
/// and, for A < 0, the maximum itself at most -dual_clip * A. Where a clip decides, the gradient is 0; at a tie it is the unclipped one.
PolicyTotals policy_loss(const PolicyRows& rows, const PolicyLossOptions& options, std::span<float> dlogprob, std::span<float> dentropy);

// ---- value ---------------------------------------------------------------------------------------------------------------------

struct ValueLossOptions {
  double clip = 0.2;         ///< a value may move this far from the old one; 0: unclipped
  double coefficient = 1;    ///< on top of the 0.5
};

struct ValueTotals {
  double loss = 0;           ///< weighted
  double squared_error = 0;  ///< sum of (V - R)^2
  std::int64_t tokens = 0, clipped = 0;
  std::int64_t first_bad_row = -1;
  ValueTotals& operator+=(const ValueTotals& other);
};

/// loss = weight * coefficient * 0.5 * max((V - R)^2, (clip(V, Vold - clip, Vold + clip) - R)^2); gradient 0 where the clip decides.
ValueTotals value_loss(std::span<const float> value, std::span<const float> old_value, std::span<const float> returns,
                       std::span<const float> weight, const ValueLossOptions& options, std::span<float> dvalue);

// ---- reward model --------------------------------------------------------------------------------------------------------------

/// One comparison: the score at index `chosen` should exceed the one at `rejected` by `margin`.
struct Pair {
  std::int32_t chosen = 0, rejected = 0;
  float margin = 0;
  double weight = 1;
};

struct PairTotals {
  double loss = 0;                     ///< weighted and scaled
  std::int64_t pairs = 0, correct = 0;  ///< correct: chosen > rejected; a tie is not
  std::int64_t first_bad_pair = -1;
  PairTotals& operator+=(const PairTotals& other);
};

/// loss = scale * sum of weight * softplus(-(s_chosen - s_rejected - margin)), computed without overflow; scale is one over the
/// prompts of the optimizer step. `dscores` (one per score) is replaced; pairs add in the order given, in fp64.
PairTotals pair_loss(std::span<const float> scores, std::span<const Pair> pairs, double scale, std::span<float> dscores);

}  // namespace collimate::rlhf
