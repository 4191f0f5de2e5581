#include "collimate/rlhf/score_source.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/checksum.hpp"
#include "collimate/rlhf/compute_grains.hpp"
#include "collimate/rlhf/weights.hpp"

namespace collimate::rlhf {

void check_answers(const Session& session, const Dataset& prompts) {
  if (session.options.ppo.scorer.kind != "exact" || !session.first()) return;
  for (std::int64_t i = 0; i < prompts.size(); ++i) {
    const std::string answer = prompts.prompt(i).answer;
    require(reference_number(answer).has_value(),
            "ppo.scorer = exact compares with the number of a reference answer, and prompt {} of '{}' has {}: prepare the prompts from "
            "records with the field 'answer', or choose another ppo.scorer",
            i, prompts.path(), answer.empty() ? "no answer" : fmt::format("the answer '{}'", answer));
  }
}

std::vector<double> ScoreSource::score(const Rollout& rollout, const Batch& batch) const {
  std::vector<double> scores = raw(rollout, batch);
  for (double& score : scores) score = normalisation_(score);
  return scores;
}

std::string ScoreSource::name() const {
  const ScorerOptions& o = session_.options.ppo.scorer;
  if (model_) return fmt::format("model {} {} {}", base_hash(model_->store()), normalisation_.gain, normalisation_.bias);
  const std::string form = o.exact_answer == "marked" ? "" : o.exact_answer;
  std::string which = o.kind == "exact"     ? form
                      : o.kind == "regex"   ? o.pattern
                      : o.kind == "length"  ? std::to_string(o.length)
                      : o.kind == "process" ? o.command
                                            : "";
  agree_on(session_.ranks(), [&] {
    if (o.kind != "lexicon" || !session_.first()) return;
    which = checksum_text(checksum(read_file(session_.path(o.lexicon))));
    if (o.value_column > 0) which += fmt::format(" {} {}", o.word_column, o.value_column);
  });
  broadcast(session_.ranks(), which);
  return fmt::format("{} {} {}", o.kind, o.sign, which);
}

std::vector<ScoredSample> ScoreSource::samples_of(const Rollout& rollout) const {
  std::vector<ScoredSample> samples;
  for (std::int64_t i = 0; i < rollout.size(); ++i) {
    samples.push_back({rollout.ids[i], rollout.prompts[i].text, rollout.responses[i], rollout.prompts[i].answer,
                       rollout.ended(i) ? "eos" : "length", rollout.offsets[i + 1] - rollout.offsets[i]});
    if (!session_.options.run.sample_ids) continue;
    samples.back().prompt_ids = rollout.prompt_ids(i);
    samples.back().response_ids = rollout.response_ids(i);
  }
  return samples;
}

std::string ScoreSource::equal_scores(const Rollout& rollout, std::span<const double> scores, const ScoreNormalisation& in) const {
  const auto all_equal = [](const auto& list) {
    return std::all_of(list.begin(), list.end(), [&](const auto& one) { return one == list[0]; });
  };
  if (!session_.first() || scores.size() < 2 || !all_equal(scores)) return "";
  std::string why = "its program answers the same for each";
  if (all_equal(rollout.responses))
    why = rollout.responses[0].empty() ? "all responses are empty" : "all responses are the same text";
  else if (model_)
    why = "has the reward model learned anything?";
  else if (const std::string known = session_.scorer->why_equal(samples_of(rollout)); !known.empty())
    why = known;
  return fmt::format("the scorer {} gives all {} samples the score {:.6g}, from which nothing is learned: {}",
                     session_.options.ppo.scorer.kind, scores.size(), (scores[0] - in.bias) / in.gain, why);
}

std::vector<double> ScoreSource::raw(const Rollout& rollout, const Batch& batch) const {
  if (model_) {
    const auto scores =
        per_sequence(batch, session_.division(), [&](auto grains, const EachValued& each) { model_->values(grains, each); });
    return {scores.begin(), scores.end()};
  }
  std::vector<double> scores;
  agree_on(session_.ranks(), [&] {
    if (!session_.first()) return;
    const std::vector<ScoredSample> samples = samples_of(rollout);
    const ScorerOptions& o = session_.options.ppo.scorer;
    for (const double raw : session_.scorer->score(samples)) {
      const double score = o.sign * raw;
      constexpr double most = std::numeric_limits<float>::max();
      require(
          std::abs(score) <= most && std::abs(normalisation_(score)) <= most,
          "the scorer {} gives sample {} the score {}, times ppo.scorer_sign = {}: a reward can be no larger than {:.3g}, so scale "
          "the scores",
          o.kind == "process" ? fmt::format("'{}'", o.command) : o.kind, samples[scores.size()].index, raw, o.sign, most);
      scores.push_back(score);
    }
  });
  broadcast(session_.ranks(), scores);
  return scores;
}

}  // namespace collimate::rlhf
