#pragma once
#include "collimate/data/dataset.hpp"
#include "collimate/rlhf/advantages.hpp"
#include "collimate/rlhf/session.hpp"

namespace collimate::rlhf {

/// Prompts with the responses that a policy sampled for them. Held whole by every rank.
struct Rollout {
  std::vector<PromptSample> prompts;
  std::vector<Sequence> sequences;  ///< prompt and response tokens; id is the key of the sample's random numbers
  std::vector<std::int64_t> ids;    ///< of the sequences: the samples' numbers in samples.jsonl and in errors
  std::vector<Finish> finish;
  std::vector<std::string> responses;  ///< decoded
  std::vector<std::int64_t> offsets;   ///< [N+1] of the flat per-token arrays, response tokens only
  std::vector<float> sampler_logprob;  ///< per token, as the sampler saw it; only to report
  std::int64_t size() const { return static_cast<std::int64_t>(sequences.size()); }
  Responses where() const { return {offsets, {}, ids}; }
  bool ended(std::int64_t sample) const { return finish[sample] == Finish::end_of_text; }
  std::vector<std::int32_t> prompt_ids(std::int64_t sample) const;
  std::vector<std::int32_t> response_ids(std::int64_t sample) const;  ///< the end of text included, where it was sampled
  std::vector<std::int64_t> lengths() const;  ///< response tokens
  std::int64_t tokens() const;                ///< prompts and responses together
};

/// How a rollout is sampled.
struct RolloutOptions {
  double temperature = 1;
  std::int64_t max_new = 0;
  RandomKey key{0, Purpose::sampling};
};

/// Samples a response to each prompt; ids[i] keys the random numbers of sample i. Every rank generates its share; the result does not
/// depend on that.
Rollout sample_responses(const Session& session, Engine& policy, const TextRules& text, std::vector<PromptSample> prompts,
                         std::span<const std::int64_t> ids, const RolloutOptions& how);

/// The most tokens of a prompt in a dataset.
std::int64_t longest_prompt(const Dataset& prompts);

/// Adds a sample's token ids to a line of samples.jsonl, where run.sample_ids asks for them.
void add_ids(const Session& session, JsonLine& line, const Rollout& rollout, std::int64_t sample);

}  // namespace collimate::rlhf
