#pragma once
#include "collimate/rlhf/rollout.hpp"

namespace collimate::rlhf {

/// Stops, naming the prompt, where ppo.scorer needs a reference answer with a number and a prompt has none. Rank 0 looks.
void check_answers(const Session& session, const Dataset& prompts);

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

}  // namespace collimate::rlhf
