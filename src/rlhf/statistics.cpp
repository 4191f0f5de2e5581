#include "collimate/rlhf/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "collimate/base/error.hpp"

namespace collimate::rlhf {

MeanStd mean_std(std::span<const double> x) {
  if (x.empty()) return {};
  const double count = static_cast<double>(x.size());
  double sum = 0, squares = 0;
  for (const double v : x) sum += v;
  const double mean = sum / count;
  for (const double v : x) squares += (v - mean) * (v - mean);
  return {mean, std::sqrt(squares / count)};
}

double standard_error(std::span<const double> x, std::int64_t cluster) {
  const std::int64_t clusters = std::ssize(x) / cluster;
  if (clusters < 2) return 0;
  std::vector<double> means(clusters);
  for (std::int64_t i = 0; i < clusters * cluster; ++i) means[i / cluster] += x[i] / static_cast<double>(cluster);
  return mean_std(means).std / std::sqrt(static_cast<double>(clusters - 1));
}

ScoreNormalisation normalisation_of(std::span<const double> scores) {
  require(scores.size() >= 2, "{} scores are too few to normalise a reward model with; give at least two", scores.size());
  for (std::size_t i = 0; i < scores.size(); ++i) require(std::isfinite(scores[i]), "score {} of the normalisation is {}", i, scores[i]);
  const MeanStd moments = mean_std(scores);
  require(
      moments.std > 1e-12 * (1 + std::abs(moments.mean)),
      "all {} scores of the normalisation equal {}, so that nothing can be learned from them: train the reward model longer, choose another ppo.scorer, or leave ppo.normalise_samples out",
      scores.size(), moments.mean);
  return {1 / moments.std, -moments.mean / moments.std};
}

double explained_variance(std::span<const float> values, std::span<const float> returns, const Responses& where) {
  std::vector<float> error(returns.size(), 0.0f);
  for (std::int64_t sample = 0; sample < where.samples(); ++sample)
    for (std::int64_t slot = where.offsets[sample]; slot < where.offsets[sample + 1]; ++slot)
      if (where.valid(slot)) error[slot] = returns[slot] - values[slot];
  const double total = moments_of(returns, where, Variance::biased).variance;
  return total > 0 ? 1 - moments_of(error, where, Variance::biased).variance / total : 0;
}

LengthStatistics length_statistics(std::span<const std::int64_t> lengths) {
  if (lengths.empty()) return {};
  std::vector<std::int64_t> sorted(lengths.begin(), lengths.end());
  std::sort(sorted.begin(), sorted.end());
  std::int64_t sum = 0;
  for (const std::int64_t length : sorted) sum += length;
  const std::size_t rank = (95 * sorted.size() + 99) / 100;  // nearest rank, counted from 1
  return {static_cast<double>(sum) / static_cast<double>(sorted.size()), sorted[rank - 1], sorted.back()};
}

LogprobDistance logprob_distance(std::span<const float> a, std::span<const float> b, const Responses& where) {
  LogprobDistance distance;
  double sum = 0, product = 0;
  std::int64_t count = 0;
  for (std::int64_t sample = 0; sample < where.samples(); ++sample)
    for (std::int64_t slot = where.offsets[sample]; slot < where.offsets[sample + 1]; ++slot) {
      if (!where.valid(slot)) continue;
      const double off = std::abs(static_cast<double>(a[slot]) - b[slot]);
      sum += off;
      product += std::exp(off);
      distance.max_abs = std::max(distance.max_abs, off);
      ++count;
    }
  if (count == 0) return distance;
  distance.mean_abs = sum / static_cast<double>(count);
  distance.mult_prob_error = product / static_cast<double>(count);
  return distance;
}

}  // namespace collimate::rlhf
