#include "collimate/rlhf/kl_estimator.hpp"

#include <algorithm>
#include <cmath>

namespace collimate::rlhf {

KlTerm kl_term(KlEstimator estimator, double logprob, double other_logprob) {
  const double d = logprob - other_logprob;
  if (estimator == KlEstimator::k1) return {d, 1};
  if (estimator == KlEstimator::k2) return {0.5 * d * d, d};
  const double held = std::clamp(d, -log_ratio_limit, log_ratio_limit);  // NaN passes through
  const double inverse_ratio = std::exp(-held);
  return {inverse_ratio - 1 + held, held == d ? 1 - inverse_ratio : 0};
}

}  // namespace collimate::rlhf
