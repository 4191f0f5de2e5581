#include "collimate/rlhf/advantages.hpp"

#include <algorithm>
#include <cmath>

#include "collimate/base/error.hpp"

namespace collimate::rlhf {
namespace {

void check_span(const Responses& where, std::size_t size, const char* name) {
  const std::size_t slots = where.offsets.empty() ? 0 : static_cast<std::size_t>(where.offsets.back());
  ensure(size >= slots, "'{}' has {} slots where the responses need {}", name, size, slots);
  ensure(where.mask.empty() || where.mask.size() >= slots, "the mask has {} slots where the responses need {}", where.mask.size(), slots);
}

void check_finite(double x, const char* name, std::int64_t sample, std::int64_t token) {
  if (!std::isfinite(x)) [[unlikely]]
    fail("the {} of sample {} at response token {} is {}; the run stops here", name, sample, token, x);
}

/// Calls body(sample, slot) for every valid token, in index order.
template <class Body>
void for_each_token(const Responses& where, Body body) {
  for (std::int64_t sample = 0; sample < where.samples(); ++sample)
    for (std::int64_t slot = where.offsets[sample]; slot < where.offsets[sample + 1]; ++slot)
      if (where.valid(slot)) body(sample, slot);
}

}  // namespace

std::int64_t Responses::length(std::int64_t sample) const {
  std::int64_t count = 0;
  for (std::int64_t slot = offsets[sample]; slot < offsets[sample + 1]; ++slot) count += valid(slot);
  return count;
}

double shape_score(double score, bool ended, const ScoreOptions& options) {
  if (!std::isfinite(score)) return score;  // neither rule may hide a broken score: shape_rewards refuses it
  if (options.clip > 0) score = std::clamp(score, -options.clip, options.clip);
  if (ended || options.missing_eos == MissingEos::ignore) return score;
  return options.missing_eos == MissingEos::replace ? options.missing_eos_value : score - options.missing_eos_value;
}

std::vector<double> shape_rewards(std::span<float> rewards, std::span<const float> logprob, std::span<const float> reference_logprob,
                                  std::span<const double> scores, const Responses& where, double beta, KlEstimator estimator) {
  check_span(where, rewards.size(), "rewards");
  check_span(where, logprob.size(), "log-probabilities");
  check_span(where, reference_logprob.size(), "reference log-probabilities");
  ensure(static_cast<std::int64_t>(scores.size()) == where.samples(), "{} scores for {} samples", scores.size(), where.samples());
  std::vector<double> sample_kl(scores.size(), 0.0);
  for (std::int64_t sample = 0; sample < where.samples(); ++sample) {
    const std::int64_t begin = where.offsets[sample], end = where.offsets[sample + 1];
    std::int64_t last = end - 1;
    while (last >= begin && !where.valid(last)) --last;
    for (std::int64_t slot = begin; slot < end; ++slot) {
      rewards[slot] = 0;
      if (!where.valid(slot)) continue;
      const double kl = kl_term(estimator, logprob[slot], reference_logprob[slot]).value;
      const double reward = -beta * kl + (slot == last ? scores[sample] : 0);
      check_finite(kl, "KL", where.id(sample), slot - begin);
      check_finite(reward, "reward", where.id(sample), slot - begin);
      rewards[slot] = static_cast<float>(reward);
      sample_kl[sample] += kl;
    }
  }
  return sample_kl;
}

void estimate_advantages(std::span<float> advantages, std::span<float> returns, std::span<const float> rewards,
                         std::span<const float> values, const Responses& where, double gamma, double lambda) {
  check_span(where, advantages.size(), "advantages");
  check_span(where, returns.size(), "returns");
  check_span(where, rewards.size(), "rewards");
  check_span(where, values.size(), "values");
  for (std::int64_t sample = 0; sample < where.samples(); ++sample) {
    const std::int64_t begin = where.offsets[sample];
    double next_value = 0, next_advantage = 0;
    for (std::int64_t slot = where.offsets[sample + 1] - 1; slot >= begin; --slot) {
      if (!where.valid(slot)) {
        advantages[slot] = returns[slot] = 0;
        continue;
      }
      const double value = values[slot];
      check_finite(rewards[slot], "reward", where.id(sample), slot - begin);
      check_finite(value, "value", where.id(sample), slot - begin);
      next_advantage = rewards[slot] + gamma * next_value - value + gamma * lambda * next_advantage;
      next_value = value;
      advantages[slot] = static_cast<float>(next_advantage);
      returns[slot] = static_cast<float>(next_advantage + value);
    }
  }
}

Moments moments_of(std::span<const float> x, const Responses& where, Variance kind) {
  check_span(where, x.size(), "numbers");
  Moments moments;
  double sum = 0, squares = 0;
  for_each_token(where, [&](std::int64_t, std::int64_t slot) {
    sum += x[slot];
    ++moments.count;
  });
  if (moments.count) moments.mean = sum / static_cast<double>(moments.count);
  for_each_token(where, [&](std::int64_t, std::int64_t slot) {
    const double off = x[slot] - moments.mean;
    squares += off * off;
  });
  if (moments.count > 1) moments.variance = squares / static_cast<double>(moments.count - (kind == Variance::unbiased));
  return moments;
}

Moments whiten(std::span<float> x, const Responses& where, Variance kind, bool keep_mean) {
  const Moments moments = moments_of(x, where, kind);
  const double scale = 1 / std::sqrt(moments.variance + 1e-8);
  const double centre = keep_mean ? moments.mean : 0;
  for_each_token(where, [&](std::int64_t, std::int64_t slot) { x[slot] = static_cast<float>((x[slot] - moments.mean) * scale + centre); });
  return moments;
}

}  // namespace collimate::rlhf
