#pragma once
#include <cstdint>
#include <span>

#include "collimate/rlhf/advantages.hpp"

// Health metrics of a rollout and the reward model's normalisation; all sums in index order in fp64.

namespace collimate::rlhf {

/// score = gain * raw + bias has mean 0 and standard deviation 1 on the samples it was taken from.
struct ScoreNormalisation {
  double gain = 1, bias = 0;
  double operator()(double raw) const { return gain * raw + bias; }
};
/// gain = 1 / sigma (biased), bias = -mu / sigma of at least two scores; equal or non-finite scores are an error.
ScoreNormalisation normalisation_of(std::span<const double> scores);

/// 1 - Var(R - V) / Var(R) over valid tokens: 1 for a perfect critic, 0 for a constant one; 0 where the returns do not vary.
double explained_variance(std::span<const float> values, std::span<const float> returns, const Responses& where);

/// In tokens; p95 is the smallest length that at least 95 % of the samples do not exceed.
struct LengthStatistics {
  double mean = 0;
  std::int64_t p95 = 0, max = 0;
};
LengthStatistics length_statistics(std::span<const std::int64_t> lengths);

/// How far two sets of log-probabilities of the same tokens lie apart (the sampler's and the trainer's, say).
struct LogprobDistance {
  double mean_abs = 0;         ///< mean |a - b|
  double max_abs = 0;
  double mult_prob_error = 1;  ///< mean exp |a - b|, as NeMo-RL reports it; above 1.05 the two disagree
};
LogprobDistance logprob_distance(std::span<const float> a, std::span<const float> b, const Responses& where);

/// Mean and standard deviation (biased) in index order; 0 and 0 of nothing.
struct MeanStd {
  double mean = 0, std = 0;
};
MeanStd mean_std(std::span<const double> x);

/// Standard error of the mean of x, whose values come in clusters of `cluster` that follow each other: s / sqrt(n) over the n means of clusters,
/// s with n - 1. 0 for fewer than two clusters.
double standard_error(std::span<const double> x, std::int64_t cluster);

}  // namespace collimate::rlhf
