#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "collimate/rlhf/kl_estimator.hpp"

// From scores to advantages. The arrays of a rollout are small and held whole by every rank, and all sums run in index order in fp64,
// so every rank gets the same bits.
//
//   for i: score[i] = shape_score(raw[i], finish[i] == eos, score_options);
//   kl   = shape_rewards(rewards, old_logprob, reference_logprob, score, where, beta, KlEstimator::k1);   // [N], KL of each sample
//   estimate_advantages(advantages, returns, rewards, values, where, gamma, lambda);
//   whiten(advantages, where, Variance::biased);
//
// Slots that are no valid token may hold anything (also NaN): they are never read. A NaN or an infinity in a valid slot is an error
// that names the sample and its token.

namespace collimate::rlhf {

/// Where the response tokens of N samples lie in flat per-token arrays: sample i owns [offsets[i], offsets[i + 1]), and of those the
/// slots with mask != 0 (all of them if `mask` is empty). A padded [N,T] array has offsets i * T and a mask.
struct Responses {
  std::span<const std::int64_t> offsets;      ///< N + 1, not decreasing
  std::span<const std::uint8_t> mask = {};    ///< empty, or one per slot
  std::span<const std::int64_t> ids = {};     ///< numbers by which errors name the samples; empty: 0 to N - 1
  std::int64_t samples() const { return offsets.empty() ? 0 : static_cast<std::int64_t>(offsets.size()) - 1; }
  std::int64_t id(std::int64_t sample) const { return ids.empty() ? sample : ids[static_cast<std::size_t>(sample)]; }
  bool valid(std::int64_t slot) const { return mask.empty() || mask[static_cast<std::size_t>(slot)] != 0; }
  std::int64_t length(std::int64_t sample) const;  ///< valid tokens of a sample
};

/// What a response that does not end in end-of-text costs: nothing, its score less a number, or a fixed score instead.
enum class MissingEos { ignore, subtract, replace };

struct ScoreOptions {
  double clip = 0;  ///< the score is held to [-clip, clip] before the KL penalty joins it; 0: off
  MissingEos missing_eos = MissingEos::ignore;
  double missing_eos_value = 1;
};

/// First the clip, then the rule for a missing end-of-text (so that a clip never swallows the penalty).
double shape_score(double score, bool ended, const ScoreOptions& options);

/// rewards[t] = -beta * kl_t + (t is the sample's last valid token ? score : 0); 0 elsewhere in a sample. Returns the KL of each
/// sample: the sum over its tokens. A sample without a valid token has no reward and KL 0.
std::vector<double> shape_rewards(std::span<float> rewards, std::span<const float> logprob, std::span<const float> reference_logprob,
                                  std::span<const double> scores, const Responses& where, double beta, KlEstimator estimator);

/// Generalised advantage estimation (Schulman et al. 2016, equation 16), over the valid tokens of each sample one after another:
///   delta_t = r_t + gamma V_{t+1} - V_t,   A_t = delta_t + gamma lambda A_{t+1},   returns_t = A_t + V_t,
/// with V and A 0 after the last token. Slots that are not valid get 0 and no step of time passes there.
void estimate_advantages(std::span<float> advantages, std::span<float> returns, std::span<const float> rewards,
                         std::span<const float> values, const Responses& where, double gamma, double lambda);

/// Divisor of a variance: n (biased, as TensorFlow's moments) or n - 1 (unbiased, as torch.var).
enum class Variance { biased, unbiased };

struct Moments {
  double mean = 0, variance = 0;
  std::int64_t count = 0;
};

/// Over all valid tokens of all samples, in index order; the variance of fewer than two numbers is 0.
Moments moments_of(std::span<const float> x, const Responses& where, Variance kind);

/// x = (x - mean) / sqrt(variance + 1e-8), plus the mean again if keep_mean (for rewards), over all valid tokens. Returns the moments
/// that x had.
Moments whiten(std::span<float> x, const Responses& where, Variance kind, bool keep_mean = false);

}  // namespace collimate::rlhf
