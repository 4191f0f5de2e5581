#pragma once
#include "collimate/data/dataset.hpp"
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

/// Log-probability of every response token of a batch, in sequence order, on every rank.
std::vector<float> token_logprobs(const Session& session, Engine& policy, const Batch& batch, float temperature);

/// The most tokens of a prompt in a dataset.
std::int64_t longest_prompt(const Dataset& prompts);

/// Stops, naming the prompt, where ppo.scorer needs a reference answer with a number and a prompt has none. Rank 0 looks.
void check_answers(const Session& session, const Dataset& prompts);

/// Stops where these prompts cannot be evaluated as the section `evaluate` of the deck says: too many samples, or evaluate.preferred, which
/// counts the quickstart's form of answers, with a prompt that is none of its questions.
void check_evaluation(const Session& session, const Dataset& prompts);

/// Gives scores to responses: a reward model, normalised, or the session's built-in scorer. Equal on every rank.
class ScoreSource {
 public:
  /// model: null where the session's scorer is asked.
  ScoreSource(const Session& session, Engine* model, ScoreNormalisation normalisation)
      : session_(session), model_(model), normalisation_(normalisation) {}
  std::vector<double> raw(const Rollout& rollout, const Batch& batch) const;  ///< as the model or scorer gives them, times ppo.scorer_sign
  std::vector<double> score(const Rollout& rollout, const Batch& batch) const;  ///< normalised
  /// Tells scorers apart whose scores have different units: the options of a built-in one, the content of a lexicon; a reward model's body
  /// (a hash) and normalisation, as its checkpoint has them. Call it before set_normalisation. Collective.
  std::string name() const;
  /// Where all of these scores are equal: a sentence that says so and names the likely reason; "" otherwise, and on other ranks than the
  /// first. `in`: the normalisation that the scores have.
  std::string equal_scores(const Rollout& rollout, std::span<const double> scores, const ScoreNormalisation& in = {}) const;
  const ScoreNormalisation& normalisation() const { return normalisation_; }
  void set_normalisation(ScoreNormalisation normalisation) { normalisation_ = normalisation; }
  bool is_model() const { return model_ != nullptr; }

 private:
  std::vector<ScoredSample> samples_of(const Rollout& rollout) const;
  const Session& session_;
  Engine* model_;
  ScoreNormalisation normalisation_;
};

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

/// Adds a sample's token ids to a line of samples.jsonl, where run.sample_ids asks for them.
void add_ids(const Session& session, JsonLine& line, const Rollout& rollout, std::int64_t sample);

/// Adds a sample of an evaluation to a line that says whose it is, and writes it to samples.jsonl.
void write_sample(const Session& session, JsonLine line, const Evaluation& evaluation, std::int64_t sample);

}  // namespace collimate::rlhf
