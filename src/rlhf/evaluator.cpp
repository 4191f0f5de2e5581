#include "collimate/rlhf/evaluator.hpp"

#include <algorithm>

#include "collimate/rlhf/saved_models.hpp"

namespace collimate::rlhf {
namespace {

const std::string& prompts_of(const EvaluateOptions& options) {
  require(!options.prompts.empty(), "the stage evaluate needs evaluate.prompts: name a dataset of prompts");
  return options.prompts;
}

}  // namespace

Evaluator::Evaluator(Session& session)
    : session_(session), prompts_(open_dataset(session, "evaluate.prompts", prompts_of(session.options.evaluate), DatasetKind::prompts)) {
  const Options& o = session.options;
  check_answers(session, prompts_);
  check_evaluation(session, prompts_);
  longest_ = longest_prompt(prompts_) + (o.evaluate.max_new ? o.evaluate.max_new : o.ppo.max_new);
  policy_.source = find_policy("evaluate.model", o.evaluate.model);
  if (const Source& s = policy_.source; !s.checkpoint.empty())  // adapters stay apart, as where they learned: the numbers are the same
    policy_.source.card.adapters = SavedModels(s.checkpoint).card(s.model).adapters;
  check_lengths(policy_, "policy");
  if (const std::string& name = o.evaluate.reference; !name.empty()) {
    reference_.source = find_policy("evaluate.reference", name);
    const std::int64_t tokens = reference_.source.card.config.vocabulary;
    require(tokens == policy_.source.card.config.vocabulary,
            "evaluate.reference has {} tokens and evaluate.model {}: they must be the same", tokens, policy_.source.card.config.vocabulary);
    check_lengths(reference_, "reference");
  }
  if (o.ppo.scorer.kind == "model") {
    reward_.source = find_source(session, "ppo.reward", o.ppo.reward, Head::value, Accept::exact, prompts_);
    match_text(reward_.source, prompts_, "ppo.reward = " + o.ppo.reward);
    check_lengths(reward_, "reward");
  }
}

void Evaluator::plan() {
  for (Model* model : {&reward_, &reference_, &policy_}) model->engine.reset();
  memory_.emplace(session_.device);
  make_engine(policy_, "policy", Head::policy, session_.options.ppo.slots);
  if (!session_.options.evaluate.reference.empty()) make_engine(reference_, "reference", Head::policy);
  if (session_.options.ppo.scorer.kind == "model") make_engine(reward_, "reward", Head::value);
  memory_->workspace.reserve();
  session_.check_fits(memory_->plan);
}

Traffic Evaluator::traffic() const {
  const Options& o = session_.options;
  const std::int64_t samples = prompts_.size() * o.evaluate.samples;
  const std::int64_t grains = session_.of_a_replica(grain_bound(samples, samples * longest_, o.machine.grain_tokens));
  const std::int64_t waves = (session_.of_a_replica(samples) + o.ppo.slots - 1) / o.ppo.slots, tokens = o.evaluate.max_new ? o.evaluate.max_new : o.ppo.max_new;
  double bytes = static_cast<double>(waves * tokens) * policy_.engine->traffic_of_scoring(1);
  for (const Model* model : {&policy_, &reference_, &reward_})
    if (model->engine) bytes += model->engine->traffic_of_scoring(grains);
  return {bytes, 1, "evaluation"};
}

Source Evaluator::find_policy(const std::string& option, const std::string& name) const {
  Source source = find_source(session_, option, name, Head::policy, Accept::exact, prompts_);
  match_text(source, prompts_, option + " = " + name);
  return source;
}

void Evaluator::check_lengths(const Model& model, const std::string& name) const {
  const ModelConfig& config = model.source.card.config;
  const MachineOptions& machine = session_.options.machine;
  require(longest_ <= std::min(config.context, machine.grain_tokens),
          "the longest prompt of '{}' and the new tokens are {} tokens, more than the {} model's context of {} or batch.grain_tokens = {}: "
          "lower evaluate.max_new or prepare the prompts with --max-prompt-tokens",
          prompts_.path(), longest_, name, config.context, machine.grain_tokens);
}

void Evaluator::make_engine(Model& model, const std::string& name, Head head, std::int64_t slots) {
  model.engine = std::make_unique<Engine>(
      name, model.source.card.config, head, session_.division(),
      EngineUse{.rows = session_.most_rows(), .slots = slots, .capacity = longest_, .holds_rollouts = session_.options.machine.rollouts == "held", .lora = model.source.card.adapters.lora, .values = session_.values()}, memory_->workspace);
}

std::string Evaluator::describe() const {
  return fmt::format("evaluate: {} prompts, {} samples of each\n{}", prompts_.size(), session_.options.evaluate.samples, memory_->plan.report());
}

void Evaluator::run() {
  const EvaluateOptions& options = session_.options.evaluate;
  if (!memory_) plan();
  memory_->plan.commit(session_.options.machine.caps());
  for (Model* model : {&policy_, &reference_, &reward_}) {
    if (!model->engine) continue;
    model->engine->prepare();
    load_source(session_, model->source, *model->engine);
  }
  ScoreSource scores(session_, reward_.engine.get(), reward_.source.card.normalisation);
  if (scores.name() == policy_.source.card.scorer) scores.set_normalisation(policy_.source.card.normalisation);
  const Evaluation e = evaluate_policy(session_, *policy_.engine, reference_.engine.get(), policy_.source.text, prompts_, scores);
  JsonLine line;
  line.add("stage", "evaluate");
  const auto tell = [&](const std::string& key, double value) {
    line.add("eval_" + key, value);
    session_.summary.set("evaluate." + key, value);
  };
  tell("reward", e.reward);
  tell("raw_reward", e.raw_reward);
  if (reference_.engine) tell("kl", e.kl);
  tell("ended", e.ended);
  tell("length", e.length);
  if (options.preferred) tell("preferred", e.preferred);
  session_.metrics(line);
  session_.summary.set("evaluate.reward_error", e.reward_error);
  for (std::int64_t i = 0; i < e.rollout.size(); ++i) write_sample(session_, JsonLine().add("stage", "evaluate"), e, i);
  session_.summary.set("evaluate.state_hash", hash_text(policy_.engine->learning(), "evaluate"));
  session_.log.info("evaluate  score {:.3f} (before normalisation and sign {:.3f}){}  ended {:.0f} %  length {:.1f}, {} samples", e.reward,
                    e.raw_reward, reference_.engine ? fmt::format("  KL {:.3f}", e.kl) : "", 100 * e.ended, e.length, e.rollout.size());
}

}  // namespace collimate::rlhf
