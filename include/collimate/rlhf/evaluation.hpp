#pragma once
#include "collimate/rlhf/score_source.hpp"

namespace collimate::rlhf {

/// What a policy does on held-out prompts.
struct Evaluation {
  double reward = 0, raw_reward = 0, kl = 0, preferred = 0, ended = 0, length = 0;  ///< means over the samples
  double reward_error = 0;  ///< standard error of reward: samples of one prompt count as one observation; 0 for a single prompt
  Rollout rollout;
  std::vector<double> raw_scores, scores;  ///< of each sample, before and after normalisation
  std::vector<double> kls;                 ///< to the reference, of each sample; empty without one
};

/// Evaluates as the section `evaluate` of the deck says: the same prompts and random numbers before and after training.
Evaluation evaluate_policy(const Session& session, Engine& policy, Engine* reference, const TextRules& text, const Dataset& prompts,
                           const ScoreSource& scores);

/// Stops where these prompts cannot be evaluated as the section `evaluate` of the deck says: too many samples, or evaluate.preferred, which
/// counts the quickstart's form of answers, with a prompt that is none of its questions.
void check_evaluation(const Session& session, const Dataset& prompts);

/// Adds a sample of an evaluation to a line that says whose it is, and writes it to samples.jsonl.
void write_sample(const Session& session, JsonLine line, const Evaluation& evaluation, std::int64_t sample);

}  // namespace collimate::rlhf
