#include "collimate/rlhf/losses.hpp"

#include <algorithm>
#include <cmath>

#include "collimate/base/error.hpp"

namespace collimate::rlhf {
namespace {

void keep_first(std::int64_t& first_bad, std::int64_t other) {
  if (first_bad < 0) first_bad = other;
}

/// log(1 + exp(x)) for any x.
double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

/// 1 / (1 + exp(-x)) for any x.
double sigmoid(double x) {
  const double small = std::exp(-std::abs(x));
  return (x >= 0 ? 1 : small) / (1 + small);
}

struct Term {
  double value = 0, gradient = 0;
  bool clipped = false, dual_clipped = false;
};

/// The clipped surrogate of one token; `ratio` = exp(held log-ratio), `ratio_gradient` = d ratio / d logprob.
Term surrogate(double advantage, double ratio, double ratio_gradient, const PolicyLossOptions& options) {
  const double plain = -advantage * ratio;
  const double limited = -advantage * std::clamp(ratio, 1 - options.clip_low, 1 + options.clip_high);
  Term term{plain, -advantage * ratio_gradient, false, false};
  if (limited > plain) term = {limited, 0, true, false};
  const double ceiling = -options.dual_clip * advantage;
  if (options.dual_clip > 0 && advantage < 0 && term.value > ceiling) term = {ceiling, 0, false, true};
  return term;
}

}  // namespace

TokenCounts count_tokens(std::span<const std::int64_t> lengths) {
  TokenCounts counts;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    ensure(lengths[i] >= 0, "sample {} has a length of {}", i, lengths[i]);
    counts.tokens += lengths[i];
    counts.sequences += lengths[i] > 0;
  }
  return counts;
}

float token_weight(Aggregation aggregation, std::int64_t length, const TokenCounts& counts) {
  if (length <= 0) return 0;
  ensure(counts.tokens >= length && counts.sequences > 0, "a sample of {} tokens is not among the {} tokens counted", length,
         counts.tokens);
  switch (aggregation) {
    case Aggregation::token_mean: return static_cast<float>(1.0 / static_cast<double>(counts.tokens));
    case Aggregation::sequence_mean_token_mean:
      return static_cast<float>(1.0 / (static_cast<double>(counts.sequences) * static_cast<double>(length)));
    case Aggregation::sequence_mean_token_sum: return static_cast<float>(1.0 / static_cast<double>(counts.sequences));
  }
  return 0;
}

SupervisedTotals& SupervisedTotals::operator+=(const SupervisedTotals& other) {
  loss += other.loss;
  nats += other.nats;
  tokens += other.tokens;
  keep_first(first_bad_row, other.first_bad_row);
  return *this;
}

SupervisedTotals supervised_loss(std::span<const float> logprob, std::span<const float> weight, std::span<float> dlogprob) {
  ensure(weight.size() == logprob.size() && dlogprob.size() == logprob.size(), "the supervised loss has {}, {} and {} rows", logprob.size(),
         weight.size(), dlogprob.size());
  SupervisedTotals totals;
  for (std::size_t i = 0; i < logprob.size(); ++i) {
    dlogprob[i] = 0;
    if (weight[i] == 0) continue;
    const double nats = -static_cast<double>(logprob[i]);
    dlogprob[i] = -weight[i];
    totals.loss += weight[i] * nats;
    totals.nats += nats;
    ++totals.tokens;
    if (!std::isfinite(weight[i] * nats)) keep_first(totals.first_bad_row, static_cast<std::int64_t>(i));
  }
  return totals;
}

PolicyTotals& PolicyTotals::operator+=(const PolicyTotals& other) {
  loss += other.loss;
  entropy += other.entropy;
  approx_kl += other.approx_kl;
  reference_kl += other.reference_kl;
  max_abs_log_ratio = std::max(max_abs_log_ratio, other.max_abs_log_ratio);
  tokens += other.tokens;
  clipped += other.clipped;
  dual_clipped += other.dual_clipped;
  keep_first(first_bad_row, other.first_bad_row);
  return *this;
}

PolicyTotals policy_loss(const PolicyRows& rows, const PolicyLossOptions& options, std::span<float> dlogprob, std::span<float> dentropy) {
  const std::size_t n = rows.logprob.size();
  const bool with_kl = options.kl_coefficient != 0;
  ensure(rows.entropy.size() == n && rows.old_logprob.size() == n && rows.advantage.size() == n && rows.weight.size() == n &&
             dlogprob.size() == n && dentropy.size() == n && (!with_kl || rows.reference_logprob.size() == n),
         "the spans of a policy loss of {} rows differ in length", n);
  PolicyTotals totals;
  for (std::size_t i = 0; i < n; ++i) {
    dlogprob[i] = dentropy[i] = 0;
    const double weight = rows.weight[i];
    if (weight == 0) continue;
    const double log_ratio = static_cast<double>(rows.logprob[i]) - rows.old_logprob[i];
    const double held = std::clamp(log_ratio, -log_ratio_limit, log_ratio_limit);
    const double ratio = std::exp(held);
    const Term term = surrogate(rows.advantage[i], ratio, held == log_ratio ? ratio : 0, options);
    const KlTerm kl = with_kl ? kl_term(options.kl_estimator, rows.logprob[i], rows.reference_logprob[i]) : KlTerm{};
    const double loss = weight * (term.value - options.entropy_coefficient * rows.entropy[i] + options.kl_coefficient * kl.value);
    dlogprob[i] = static_cast<float>(weight * (term.gradient + options.kl_coefficient * kl.gradient));
    dentropy[i] = static_cast<float>(-weight * options.entropy_coefficient);
    totals.loss += loss;
    totals.entropy += rows.entropy[i];
    totals.approx_kl += ratio - 1 - held;
    totals.reference_kl += kl.value;
    totals.max_abs_log_ratio = std::max(totals.max_abs_log_ratio, std::abs(log_ratio));
    ++totals.tokens;
    totals.clipped += term.clipped;
    totals.dual_clipped += term.dual_clipped;
    // An infinite log-ratio is held to a finite loss, so the inputs are looked at as well.
    const bool good = std::isfinite(loss) && std::isfinite(log_ratio) && std::isfinite(rows.entropy[i]) && std::isfinite(dlogprob[i]);
    if (!good) keep_first(totals.first_bad_row, static_cast<std::int64_t>(i));
  }
  return totals;
}

ValueTotals& ValueTotals::operator+=(const ValueTotals& other) {
  loss += other.loss;
  squared_error += other.squared_error;
  tokens += other.tokens;
  clipped += other.clipped;
  keep_first(first_bad_row, other.first_bad_row);
  return *this;
}

ValueTotals value_loss(std::span<const float> value, std::span<const float> old_value, std::span<const float> returns,
                       std::span<const float> weight, const ValueLossOptions& options, std::span<float> dvalue) {
  const std::size_t n = value.size();
  ensure(old_value.size() == n && returns.size() == n && weight.size() == n && dvalue.size() == n,
         "the spans of a value loss of {} rows differ in length", n);
  ValueTotals totals;
  for (std::size_t i = 0; i < n; ++i) {
    dvalue[i] = 0;
    if (weight[i] == 0) continue;
    const double error = static_cast<double>(value[i]) - returns[i];
    double squared = error * error, gradient = error;
    if (options.clip > 0) {
      const double held = std::clamp<double>(value[i], old_value[i] - options.clip, old_value[i] + options.clip);
      const double held_error = held - returns[i];
      if (held_error * held_error > squared) {
        squared = held_error * held_error;
        gradient = 0;
        ++totals.clipped;
      }
    }
    const double scale = weight[i] * options.coefficient;
    dvalue[i] = static_cast<float>(scale * gradient);
    totals.loss += scale * 0.5 * squared;
    totals.squared_error += error * error;
    ++totals.tokens;
    if (!std::isfinite(scale * squared) || !std::isfinite(old_value[i])) keep_first(totals.first_bad_row, static_cast<std::int64_t>(i));
  }
  return totals;
}

PairTotals& PairTotals::operator+=(const PairTotals& other) {
  loss += other.loss;
  pairs += other.pairs;
  correct += other.correct;
  keep_first(first_bad_pair, other.first_bad_pair);
  return *this;
}

PairTotals pair_loss(std::span<const float> scores, std::span<const Pair> pairs, double scale, std::span<float> dscores) {
  ensure(dscores.size() == scores.size(), "{} scores have {} gradients", scores.size(), dscores.size());
  std::vector<double> gradient(scores.size(), 0.0);
  PairTotals totals;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const Pair& pair = pairs[i];
    const auto chosen = static_cast<std::size_t>(pair.chosen), rejected = static_cast<std::size_t>(pair.rejected);
    ensure(chosen < scores.size() && rejected < scores.size() && chosen != rejected, "pair {} compares scores {} and {} of {}", i,
           pair.chosen, pair.rejected, scores.size());
    const double lead = static_cast<double>(scores[chosen]) - scores[rejected] - pair.margin;
    const double loss = scale * pair.weight * softplus(-lead);
    const double slope = scale * pair.weight * sigmoid(-lead);
    gradient[chosen] -= slope;
    gradient[rejected] += slope;
    totals.loss += loss;
    ++totals.pairs;
    totals.correct += scores[chosen] > scores[rejected];
    if (!std::isfinite(loss)) keep_first(totals.first_bad_pair, static_cast<std::int64_t>(i));
  }
  for (std::size_t i = 0; i < scores.size(); ++i) dscores[i] = static_cast<float>(gradient[i]);
  return totals;
}

}  // namespace collimate::rlhf
