#include "collimate/rlhf/evaluation.hpp"

#include <algorithm>

#include "collimate/data/example.hpp"
#include "collimate/rlhf/compute_grains.hpp"

namespace collimate::rlhf {

Evaluation evaluate_policy(const Session& session, Engine& policy, Engine* reference, const TextRules& text, const Dataset& prompts,
                           const ScoreSource& source) {
  const EvaluateOptions& options = session.options.evaluate;
  std::vector<PromptSample> asked;
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < prompts.size(); ++i)
    for (std::int64_t k = 0; k < options.samples; ++k) {
      asked.push_back(prompts.prompt(i));
      ids.push_back(i * options.samples + k);
    }
  Evaluation result;
  result.rollout = sample_responses(session, policy, text, std::move(asked), ids,
                                    {options.temperature, options.max_new ? options.max_new : session.options.ppo.max_new,
                                     RandomKey(static_cast<std::uint64_t>(session.options.run.seed), Purpose::evaluation)});
  const Rollout& rollout = result.rollout;
  const Batch batch = session.batch(rollout.sequences);
  result.raw_scores = source.raw(rollout, batch);
  const std::string equal = source.equal_scores(rollout, result.raw_scores);
  if (!equal.empty()) session.log.warning("evaluation: {}", equal);
  const auto n = static_cast<double>(rollout.size());
  for (const double raw : result.raw_scores) {
    result.scores.push_back(source.normalisation()(raw));
    result.raw_reward += raw / n;
    result.reward += result.scores.back() / n;
  }
  result.reward_error = standard_error(result.scores, options.samples);
  std::int64_t ended = 0, liked = 0;
  for (std::int64_t i = 0; i < rollout.size(); ++i) {
    ended += rollout.ended(i);
    liked += options.preferred && rollout.ended(i) && preferred(rollout.prompts[i].answer, rollout.responses[i]);
  }
  result.ended = static_cast<double>(ended) / n;
  result.preferred = static_cast<double>(liked) / n;
  result.length = static_cast<double>(rollout.offsets.back()) / n;
  if (!reference) return result;
  const float temperature = options.temperature > 0 ? static_cast<float>(options.temperature) : 1.0f;
  const auto ours = token_logprobs(batch, session.division(), policy, temperature);
  const auto theirs = token_logprobs(batch, session.division(), *reference, temperature);
  for (std::int64_t i = 0; i < rollout.size(); ++i) {
    double& kl = result.kls.emplace_back(0);
    for (std::int64_t t = rollout.offsets[i]; t < rollout.offsets[i + 1]; ++t) {
      kl += static_cast<double>(ours[t]) - theirs[t];
      result.kl += (static_cast<double>(ours[t]) - theirs[t]) / n;
    }
  }
  return result;
}

void check_evaluation(const Session& session, const Dataset& prompts) {
  const std::int64_t samples = session.options.evaluate.samples;
  require(samples <= most_samples / std::max<std::int64_t>(1, prompts.size()),
          "evaluate.samples = {} of each of the {} prompts of '{}' are more than the {} samples that an evaluation can hold: lower it",
          samples, prompts.size(), prompts.path(), most_samples);
  if (!session.options.evaluate.preferred || !session.first()) return;
  const std::vector<ExampleQuestion> questions = example_questions();
  for (std::int64_t i = 0; i < prompts.size(); ++i) {
    const PromptSample prompt = prompts.prompt(i);
    const auto is_prompt = [&](const ExampleQuestion& question) {
      return question.answer == prompt.answer && prompt.text.find(question.prompt) != std::string::npos;
    };
    require(std::any_of(questions.begin(), questions.end(), is_prompt),
            "evaluate.preferred counts answers that have the form the quickstart prefers, and prompt {} of '{}' is none of the "
            "quickstart's questions: leave evaluate.preferred out, mean scores are reported in any case",
            i, prompts.path());
  }
}

void write_sample(const Session& session, JsonLine line, const Evaluation& e, std::int64_t i) {
  line.add("sample", i).add("prompt", e.rollout.prompts[i].text).add("response", e.rollout.responses[i]);
  line.add("reward", e.scores[i]).add("raw_reward", e.raw_scores[i]);
  if (!e.kls.empty()) line.add("kl", e.kls[i]);
  line.add("finish", e.rollout.ended(i) ? "eos" : "length");
  add_ids(session, line, e.rollout, i);
  session.sample(line);
}

}  // namespace collimate::rlhf
