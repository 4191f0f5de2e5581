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
    : session_(session), prompts_(open_dataset(session, "evaluate.prompts", prompts_of(session.options.evaluate), DatasetKind::prompts)), plan_(session.device), workspace_(plan_) {
  const Options& o = session.options;
  check_answers(session, prompts_);
  check_evaluation(session, prompts_);
  longest_ = longest_prompt(prompts_) + (o.evaluate.max_new ? o.evaluate.max_new : o.ppo.max_new);
  policy_.source = find_policy("evaluate.model", o.evaluate.model);
  if (const Source& s = policy_.source; !s.checkpoint.empty())  // adapters stay apart, as where they learned: the numbers are the same
    policy_.source.card.adapters = SavedModels(s.checkpoint).card(s.model).adapters;
  make_engine(policy_, "policy", Head::policy, o.ppo.slots);
  if (const std::string& name = o.evaluate.reference; !name.empty()) {
    reference_.source = find_policy("evaluate.reference", name);
    const std::int64_t tokens = reference_.source.card.config.vocabulary;
    require(tokens == policy_.source.card.config.vocabulary,
            "evaluate.reference has {} tokens and evaluate.model {}: they must be the same", tokens, policy_.source.card.config.vocabulary);
    make_engine(reference_, "reference", Head::policy);
  }
  if (o.ppo.scorer.kind == "model") {
    reward_.source = find_source(session, "ppo.reward", o.ppo.reward, Head::value, Accept::exact, prompts_);
    match_text(reward_.source, prompts_, "ppo.reward = " + o.ppo.reward);
    make_engine(reward_, "reward", Head::value);
  }
  workspace_.reserve();
  session.check_fits(plan_);
}

Source Evaluator::find_policy(const std::string& option, const std::string& name) const {
  Source source = find_source(session_, option, name, Head::policy, Accept::exact, prompts_);
  match_text(source, prompts_, option + " = " + name);
  return source;
}

void Evaluator::make_engine(Model& model, const std::string& name, Head head, std::int64_t slots) {
  const ModelConfig& config = model.source.card.config;
  const MachineOptions& machine = session_.options.machine;
  require(longest_ <= std::min(config.context, machine.grain_tokens),
          "the longest prompt of '{}' and the new tokens are {} tokens, more than the {} model's context of {} or batch.grain_tokens = {}: "
          "lower evaluate.max_new or prepare the prompts with --max-prompt-tokens",
          prompts_.path(), longest_, name, config.context, machine.grain_tokens);
  model.engine = std::make_unique<Engine>(
      name, config, head, session_.division(),
      EngineUse{.rows = session_.most_rows(), .slots = slots, .capacity = longest_, .lora = model.source.card.adapters.lora, .values = session_.values()}, workspace_);
}

std::string Evaluator::describe() const {
  return fmt::format("evaluate: {} prompts, {} samples of each\n{}", prompts_.size(), session_.options.evaluate.samples, plan_.report());
}

void Evaluator::run() {
  const EvaluateOptions& options = session_.options.evaluate;
  plan_.commit(session_.options.machine.caps());
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
