#include "collimate/rlhf/rollout.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/checksum.hpp"
#include "collimate/data/example.hpp"

namespace collimate::rlhf {
namespace {

// Continuations of consecutive samples as numbers, and back: count, finish, then (token, bits of its log-probability) pairs.
std::vector<std::int32_t> flatten(const std::vector<Continuation>& continuations) {
  std::vector<std::int32_t> flat;
  for (const Continuation& c : continuations) {
    flat.push_back(static_cast<std::int32_t>(c.tokens.size()));
    flat.push_back(c.finish == Finish::end_of_text);
    for (std::size_t t = 0; t < c.tokens.size(); ++t) {
      flat.push_back(c.tokens[t]);
      flat.push_back(std::bit_cast<std::int32_t>(c.logprobs[t]));
    }
  }
  return flat;
}

void append(Rollout& rollout, const std::vector<std::int32_t>& flat, const Tokenizer* tokenizer) {
  for (std::size_t at = 0; at < flat.size();) {
    Sequence& sequence = rollout.sequences[rollout.finish.size()];
    const auto count = static_cast<std::size_t>(flat[at]);
    rollout.finish.push_back(flat[at + 1] ? Finish::end_of_text : Finish::length);
    at += 2;
    std::vector<std::int32_t> tokens;
    for (std::size_t t = 0; t < count; ++t, at += 2) {
      tokens.push_back(flat[at]);
      rollout.sampler_logprob.push_back(std::bit_cast<float>(flat[at + 1]));
    }
    rollout.responses.push_back(tokenizer ? tokenizer->decode_after(sequence.tokens, tokens) : "");
    sequence.tokens.insert(sequence.tokens.end(), tokens.begin(), tokens.end());
    rollout.offsets.push_back(rollout.offsets.back() + static_cast<std::int64_t>(count));
  }
}

}  // namespace

std::vector<std::int64_t> Rollout::lengths() const {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < size(); ++i) out.push_back(offsets[i + 1] - offsets[i]);
  return out;
}

std::vector<std::int32_t> Rollout::prompt_ids(std::int64_t sample) const {
  const std::vector<std::int32_t>& all = sequences[sample].tokens;
  return {all.begin(), all.end() - (offsets[sample + 1] - offsets[sample])};
}

std::vector<std::int32_t> Rollout::response_ids(std::int64_t sample) const {
  const std::vector<std::int32_t>& all = sequences[sample].tokens;
  return {all.end() - (offsets[sample + 1] - offsets[sample]), all.end()};
}

std::int64_t Rollout::tokens() const {
  std::int64_t sum = 0;
  for (const Sequence& sequence : sequences) sum += static_cast<std::int64_t>(sequence.tokens.size());
  return sum;
}

std::vector<float> token_logprobs(const Session& session, Engine& policy, const Batch& batch, float temperature) {
  return per_token(batch, session.division(), [&](auto grains, const EachValued& each) {
    policy.score(grains, temperature, [&](std::size_t i, auto logprob, auto) { each(i, logprob); });
  });
}

std::int64_t longest_prompt(const Dataset& prompts) {
  std::int64_t longest = 0;
  for (std::int64_t i = 0; i < prompts.size(); ++i) longest = std::max(longest, prompts.rows(i));
  return longest;
}

void check_answers(const Session& session, const Dataset& prompts) {
  if (session.options.ppo.scorer.kind != "exact" || !session.first()) return;
  for (std::int64_t i = 0; i < prompts.size(); ++i) {
    const std::string answer = prompts.prompt(i).answer;
    require(reference_number(answer).has_value(),
            "ppo.scorer = exact compares with the number of a reference answer, and prompt {} of '{}' has {}: prepare the prompts from records "
            "with the field 'answer', or choose another ppo.scorer",
            i, prompts.path(), answer.empty() ? "no answer" : fmt::format("the answer '{}'", answer));
  }
}

void check_evaluation(const Session& session, const Dataset& prompts) {
  const std::int64_t samples = session.options.evaluate.samples;
  require(samples <= most_samples / std::max<std::int64_t>(1, prompts.size()),
          "evaluate.samples = {} of each of the {} prompts of '{}' are more than the {} samples that an evaluation can hold: lower it", samples,
          prompts.size(), prompts.path(), most_samples);
  if (!session.options.evaluate.preferred || !session.first()) return;
  const std::vector<ExampleQuestion> questions = example_questions();
  for (std::int64_t i = 0; i < prompts.size(); ++i) {
    const PromptSample prompt = prompts.prompt(i);
    require(std::any_of(questions.begin(), questions.end(),
                        [&](const ExampleQuestion& q) { return q.answer == prompt.answer && prompt.text.find(q.prompt) != std::string::npos; }),
            "evaluate.preferred counts answers that have the form the quickstart prefers, and prompt {} of '{}' is none of the quickstart's "
            "questions: leave evaluate.preferred out, mean scores are reported in any case",
            i, prompts.path());
  }
}

Rollout sample_responses(const Session& session, Engine& policy, const TextRules& text, std::vector<PromptSample> prompts,
                         std::span<const std::int64_t> ids, const RolloutOptions& how) {
  const auto tokenizer = text.has_tokenizer() ? text.make_tokenizer() : nullptr;
  GenerateOptions options;
  options.sampling.temperature = how.temperature;
  options.max_new = how.max_new;
  options.key = how.key;
  options.stop = text.stops(tokenizer.get());
  Rollout rollout;
  rollout.ids.assign(ids.begin(), ids.end());
  rollout.offsets.push_back(0);
  for (std::size_t i = 0; i < prompts.size(); ++i)
    rollout.sequences.push_back({ids[i], prompts[i].tokens, static_cast<std::int64_t>(prompts[i].tokens.size())});
  const Part share = part_of(rollout.size(), session.data().rank(), session.data().size());
  std::vector<Prompt> mine;
  for (std::int64_t i = share.begin; i < share.begin + share.count; ++i)
    mine.push_back({rollout.sequences[i].tokens, static_cast<std::uint64_t>(ids[i])});
  std::vector<Continuation> sampled;
  compute_grains(session.division(), [&] { sampled = policy.generate(mine, options); });
  std::vector<std::vector<std::int32_t>> by_replica(session.data().size());
  const auto all = gather_all(session.ranks(), session.grid.speaks() ? flatten(sampled) : std::vector<std::int32_t>());
  for (int rank = 0; rank < static_cast<int>(all.size()); ++rank)
    if (!all[rank].empty()) by_replica[session.grid.coord_of(rank).data] = all[rank];
  for (const auto& flat : by_replica) append(rollout, flat, tokenizer.get());
  rollout.prompts = std::move(prompts);
  return rollout;
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
  std::string which = o.kind == "exact" ? form : o.kind == "regex" ? o.pattern : o.kind == "length" ? std::to_string(o.length) : o.kind == "process" ? o.command : "";
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
  return fmt::format("the scorer {} gives all {} samples the score {:.6g}, from which nothing is learned: {}", session_.options.ppo.scorer.kind,
                     scores.size(), (scores[0] - in.bias) / in.gain, why);
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
          "the scorer {} gives sample {} the score {}, times ppo.scorer_sign = {}: a reward can be no larger than {:.3g}, so scale the scores",
          o.kind == "process" ? fmt::format("'{}'", o.command) : o.kind, samples[scores.size()].index, raw, o.sign, most);
      scores.push_back(score);
    }
  });
  broadcast(session_.ranks(), scores);
  return scores;
}

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
  if (const std::string equal = source.equal_scores(rollout, result.raw_scores); !equal.empty()) session.log.warning("evaluation: {}", equal);
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
  const auto ours = token_logprobs(session, policy, batch, temperature), theirs = token_logprobs(session, *reference, batch, temperature);
  for (std::int64_t i = 0; i < rollout.size(); ++i) {
    double& kl = result.kls.emplace_back(0);
    for (std::int64_t t = rollout.offsets[i]; t < rollout.offsets[i + 1]; ++t) {
      kl += static_cast<double>(ours[t]) - theirs[t];
      result.kl += (static_cast<double>(ours[t]) - theirs[t]) / n;
    }
  }
  return result;
}

void add_ids(const Session& session, JsonLine& line, const Rollout& rollout, std::int64_t i) {
  if (!session.options.run.sample_ids) return;
  for (const auto& [key, ids] : {std::pair("prompt_ids", rollout.prompt_ids(i)), std::pair("response_ids", rollout.response_ids(i))})
    line.add(key, std::span<const std::int64_t>(std::vector<std::int64_t>(ids.begin(), ids.end())));
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
