#pragma once

namespace collimate::rlhf {

/// How the divergence of the policy from another distribution is estimated from the sampled tokens (Schulman, "Approximating KL
/// divergence", 2020), with d = log-probability of the policy - log-probability of the other:
///   k1 = d                  unbiased, may be negative; as a loss its expected gradient is 0, so use it in rewards only
///   k2 = d^2 / 2            as a loss its expected gradient is exactly that of the divergence
///   k3 = exp(-d) - 1 + d    unbiased, never negative; as a loss its gradient is biased
enum class KlEstimator { k1, k2, k3 };

/// One token's estimate and its derivative by the policy's log-probability.
struct KlTerm {
  double value = 0;
  double gradient = 0;
};

/// Largest |log-ratio| that is exponentiated; beyond it the exponential is held, with derivative 0.
inline constexpr double log_ratio_limit = 20;

/// d in k3 is held at +-log_ratio_limit (with derivative 0), so that no bad token overflows; k1 and k2 are exact.
KlTerm kl_term(KlEstimator estimator, double logprob, double other_logprob);

}  // namespace collimate::rlhf
