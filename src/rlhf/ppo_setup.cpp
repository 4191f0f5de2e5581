// How a PPO run starts, is saved and goes on; the method itself is in ppo_trainer.cpp.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "collimate/base/text.hpp"
#include "collimate/data/order.hpp"
#include "collimate/rlhf/minibatches.hpp"
#include "collimate/rlhf/keeping.hpp"
#include "collimate/rlhf/ppo_trainer.hpp"
#include "collimate/rlhf/restart.hpp"
#include "collimate/rlhf/weights.hpp"

namespace collimate::rlhf {
namespace {

std::int64_t optimizer_steps(const PpoOptions& o, std::int64_t iterations) {
  const auto in_rollout = static_cast<double>(o.epochs * ((o.batch + o.minibatch - 1) / o.minibatch));
  return std::max<std::int64_t>(1, std::llround(std::min(in_rollout * static_cast<double>(iterations), 1e15)));
}

KlEstimator estimator_named(const std::string& name) {
  return name == "k2" ? KlEstimator::k2 : name == "k3" ? KlEstimator::k3 : KlEstimator::k1;
}

Aggregation aggregation_named(const std::string& name) {
  return name == "token-mean"                 ? Aggregation::token_mean
         : name == "sequence-mean-token-mean" ? Aggregation::sequence_mean_token_mean
                                              : Aggregation::sequence_mean_token_sum;
}

std::string prompts_text(const PpoOptions& o, std::int64_t prompts) {
  const std::int64_t left = prompts - std::min(prompts, o.iterations * o.batch);
  if (left > 0) return fmt::format("{} of the prompts are never used", left);
  return fmt::format("{:.3g} epochs of the prompts", static_cast<double>(o.iterations * o.batch) / static_cast<double>(prompts));
}

}  // namespace

LearningRate actor_rate(const PpoOptions& o, std::int64_t iterations) {
  return o.actor_optimizer.learning_rate(optimizer_steps(o, std::max<std::int64_t>(1, iterations - o.freeze_actor)));
}

LearningRate critic_rate(const PpoOptions& o, std::int64_t iterations) {
  return o.critic_optimizer.learning_rate(optimizer_steps(o, iterations));
}

PpoTrainer::PpoTrainer(Session& session)
    : session_(session),
      options_(session.options.ppo),
      seed_(static_cast<std::uint64_t>(session.options.run.seed)),
      prompts_(open_dataset(session, "ppo.prompts", options_.prompts, DatasetKind::prompts)),
      actor_source_(find_source(session, "ppo.actor", options_.actor, Head::policy, Accept::exact_or_random, prompts_)),
      reference_source_(find_source(session, "ppo.reference", options_.reference, Head::policy, Accept::exact_or_random, prompts_)),
      critic_source_(find_source(session, "ppo.critic", options_.critic, Head::value, Accept::any_or_random, prompts_)),
      kl_(options_.kl),
      kl_estimator_(estimator_named(options_.kl_estimator)),
      aggregation_(aggregation_named(options_.aggregation)),
      score_options_(options_.score) {
  score_options_.missing_eos = options_.missing_eos == "subtract"  ? MissingEos::subtract
                               : options_.missing_eos == "replace" ? MissingEos::replace
                                                                   : MissingEos::ignore;
  check_answers(session, prompts_);
  match_text(actor_source_, prompts_, "ppo.actor = " + options_.actor);
  match_text(reference_source_, prompts_, "ppo.reference = " + options_.reference);
  match_text(critic_source_, prompts_, "ppo.critic = " + options_.critic);
  require(reference_source_.card.config.vocabulary == actor_source_.card.config.vocabulary,
          "ppo.reference has {} tokens and ppo.actor {}: they must be the same", reference_source_.card.config.vocabulary,
          actor_source_.card.config.vocabulary);
  const bool model = options_.scorer.kind == "model";
  if (model) {
    reward_source_ = find_source(session, "ppo.reward", options_.reward, Head::value, Accept::exact, prompts_);
    match_text(reward_source_, prompts_, "ppo.reward = " + options_.reward);
    require(reward_source_.card.head == Head::value, "ppo.reward = {} is not a reward model: name one, or choose another ppo.scorer",
            options_.reward);
  }
  std::int64_t prompt = longest_prompt(prompts_), max_new = options_.max_new;
  if (const EvaluateOptions& evaluate = session.options.evaluate; !evaluate.prompts.empty()) {
    heldout_.emplace(open_dataset(session, "evaluate.prompts", evaluate.prompts, DatasetKind::prompts));
    check_answers(session, *heldout_);
    check_evaluation(session, *heldout_);
    match_text(actor_source_, *heldout_, "ppo.prompts");
    prompt = std::max(prompt, longest_prompt(*heldout_));
    max_new = std::max(max_new, evaluate.max_new);
  }
  const std::int64_t longest = longest_ = prompt + max_new;
  std::vector<const Source*> all = {&actor_source_, &reference_source_, &critic_source_};
  if (model) all.push_back(&reward_source_);
  for (const Source* source : all)
    require(longest <= source->card.config.context,
            "the longest prompt ({} tokens) and {} new tokens exceed the context of {} tokens of a model: lower ppo.max_new "
            "or prepare the prompts with --max-prompt-tokens",
            prompt, max_new, source->card.config.context);
  const std::int64_t grain_tokens = session.options.machine.grain_tokens;
  require(longest <= grain_tokens, "the longest prompt ({} tokens) and {} new tokens exceed batch.grain_tokens = {}: raise it", prompt,
          max_new, grain_tokens);
  grains_ = grain_bound(options_.minibatch, options_.minibatch * longest, grain_tokens);
  actor_.rate = actor_rate(options_, options_.iterations);
  critic_.rate = critic_rate(options_, options_.iterations);
}

void PpoTrainer::plan() {
  scores_.reset();
  for (std::unique_ptr<Engine>* engine : {&reward_, &critic_.engine, &reference_, &actor_.engine}) engine->reset();
  memory_.emplace(session_.device);
  make_engines();
  memory_->workspace.reserve();
  session_.check_fits(memory_->plan);
}

Traffic PpoTrainer::traffic() const {
  const std::int64_t steps = options_.epochs * ((options_.batch + options_.minibatch - 1) / options_.minibatch);
  const std::int64_t step_grains = session_.of_a_replica(grains_);
  const std::int64_t grains = session_.of_a_replica(grain_bound(options_.batch, options_.batch * longest_, session_.options.machine.grain_tokens));
  const std::int64_t waves = (session_.of_a_replica(options_.batch) + options_.slots - 1) / options_.slots;
  double bytes = static_cast<double>(steps) * (actor_.engine->traffic_of_step(step_grains) + critic_.engine->traffic_of_step(step_grains));
  for (const Engine* engine : {actor_.engine.get(), reference_.get(), critic_.engine.get(), reward_.get()})
    if (engine) bytes += engine->traffic_of_scoring(grains);
  bytes += static_cast<double>(waves * options_.max_new) * actor_.engine->traffic_of_scoring(1);
  return {bytes, options_.iterations, "iteration"};
}

/// The reference is the actor with its adapters off, where both start from the same; so are reward model and critic.
void PpoTrainer::make_engines() {
  const Division division = session_.division();
  const LoraConfig lora = session_.options.lora.of("ppo");
  const EngineUse look{.rows = session_.most_rows(), .group = session_.group(grains_), .values = session_.values()};
  EngineUse learn = look;
  learn.most_grains = grains_;
  learn.recompute = session_.recompute();
  learn.lora = lora;
  EngineUse act = learn;
  act.slots = options_.slots;
  act.capacity = longest_;
  act.holds_rollouts = session_.options.machine.rollouts == "held";
  actor_.engine = std::make_unique<Engine>("actor", actor_source_.card.config, Head::policy, division, act, memory_->workspace);
  EngineUse refer = look, judge = look;
  if (lora.on() && same_model(actor_source_, reference_source_)) refer.frozen = &actor_.engine->store();
  reference_ = std::make_unique<Engine>("reference", reference_source_.card.config, Head::policy, division, refer, memory_->workspace);
  critic_.engine = std::make_unique<Engine>("critic", critic_source_.card.config, Head::value, division, learn, memory_->workspace);
  if (options_.scorer.kind == "model") {
    if (lora.on() && same_model(critic_source_, reward_source_)) {
      judge.frozen = &critic_.engine->store();
      judge.lora = {.rank = lora.rank, .targets = {}};  // a value head of its own
    }
    reward_ = std::make_unique<Engine>("reward", reward_source_.card.config, Head::value, division, judge, memory_->workspace);
  }
  scores_ = std::make_unique<ScoreSource>(session_, reward_.get(), reward_source_.card.normalisation);
}

std::string PpoTrainer::describe() const {
  return fmt::format("ppo: {} prompts, {} of {} samples ({}), minibatches of {}, {}; actor: {}; critic: {}\n{}{}{}", prompts_.size(),
                     counted(options_.iterations, "iteration"), options_.batch, prompts_text(options_, prompts_.size()), options_.minibatch,
                     counted(options_.epochs, "update epoch"), actor_.describe(), critic_.describe(),
                     memory_->plan.report(), describe_division(session_, *actor_.engine, grains_), describe_division(session_, *critic_.engine, grains_));
}

std::vector<std::string> PpoTrainer::warnings() const {
  if (options_.iterations == 0) return {};
  std::vector<std::string> all = warmup_warnings("ppo.critic_warmup", critic_.rate);
  if (options_.freeze_actor < options_.iterations)
    for (std::string& one : warmup_warnings("ppo.actor_warmup", actor_.rate)) all.push_back(std::move(one));
  const bool measured = heldout_.has_value() && options_.evaluate_every > 0 && options_.evaluate_every < options_.iterations;
  for (std::string& one : keeping_warnings(session_, "ppo", measured)) all.push_back(std::move(one));
  return all;
}

std::int64_t PpoTrainer::first_grains() const {
  const auto samples = take(prompts_.size(), seed_, 0, options_.batch);
  const auto first = minibatches(options_.batch, options_.minibatch, seed_, 1, 0).front();
  std::vector<Sequence> sequences;
  for (const std::int64_t i : first) {
    std::vector<std::int32_t> tokens = prompts_.prompt(samples[i]).tokens;
    const auto prompt = static_cast<std::int64_t>(tokens.size());
    tokens.resize(tokens.size() + static_cast<std::size_t>(options_.max_new));
    sequences.push_back({i, std::move(tokens), prompt});
  }
  return session_.batch(std::move(sequences)).grains();
}

void PpoTrainer::start() {
  if (!memory_) plan();
  memory_->plan.commit(session_.options.machine.caps());
  actor_.start(options_.actor_optimizer);
  critic_.start(options_.critic_optimizer);
  reference_->prepare();
  if (reward_) reward_->prepare();
  load_source(session_, actor_source_, *actor_.engine);
  load_source(session_, reference_source_, *reference_);
  load_source(session_, critic_source_, *critic_.engine);
  if (reward_) load_source(session_, reward_source_, *reward_);
  actor_source_.card.adapters = note_of(session_, "ppo", actor_source_, *actor_.engine);
  critic_source_.card.adapters = note_of(session_, "ppo", critic_source_, *critic_.engine);
  if (critic_source_.card.head == Head::policy) scale_value_head(critic_.store(), 0, 0);  // a critic made of a policy starts at 0
  scorer_name_ = scores_->name();
  if (const auto found = find_resume(session_, "ppo")) resume(found->folder);
  session_.log.info("{}", describe());
  if (done_ > 0) return;
  normalise_scores();
  hash_start(session_, "ppo", {actor_.engine.get(), reference_.get(), critic_.engine.get(), reward_.get()});
  evaluate(0, "before");
}

void PpoTrainer::finish() {
  tell_pending_steps(session_, "ppo", {&actor_, &critic_});
  session_.summary.set("ppo.state_hash", hash_text(actor_.store(), "end of ppo"));
  session_.summary.set("ppo.critic_hash", hash_text(critic_.store(), "end of ppo"));
  note_end(session_, "ppo", options_.iterations);
  save(options_.iterations, true);
}

// Scores get mean 0 and standard deviation 1 over samples of the first policy. A critic that starts from a reward model starts at its
// normalised score: normalised as the rewards are, where these come from the same model, else as that model was stored.
void PpoTrainer::normalise_scores() {
  if (options_.normalise_samples > 0) {
    std::vector<PromptSample> prompts;
    std::vector<std::int64_t> ids;
    for (const std::int64_t i : take(prompts_.size(), seed_, 0, options_.normalise_samples)) {
      ids.push_back(static_cast<std::int64_t>(prompts.size()));
      prompts.push_back(prompts_.prompt(i));
    }
    const Rollout rollout = sample_responses(session_, *actor_.engine, actor_source_.text, std::move(prompts), ids,
                                             {options_.temperature, options_.max_new, RandomKey(seed_, Purpose::normalise)});
    const std::vector<double> raw = scores_->raw(rollout, session_.batch(rollout.sequences));
    if (const std::string equal = scores_->equal_scores(rollout, raw); !equal.empty()) session_.log.warning("normalisation: {}", equal);
    scores_->set_normalisation(normalisation_of(raw));
  }
  const ScoreNormalisation n = scores_->normalisation();
  const ScoreNormalisation& of_critic =
      scores_->is_model() && same_model(critic_source_, reward_source_) ? n : critic_source_.card.normalisation;
  if (critic_source_.card.head == Head::value) scale_value_head(critic_.store(), of_critic.gain, of_critic.bias);
  session_.metrics(JsonLine().add("stage", "ppo").add("score_gain", n.gain).add("score_bias", n.bias));
}

void PpoTrainer::save(std::int64_t iteration, bool complete) {
  const nlohmann::json progress = {{"actor_steps", actor_.optimizer->steps()},
                                   {"critic_steps", critic_.optimizer->steps()},
                                   {"beta", kl_.beta()},
                                   {"gain", scores_->normalisation().gain},
                                   {"bias", scores_->normalisation().bias}};
  ModelCard critic = critic_source_.card;
  critic.head = Head::value;
  critic.normalisation = {};
  ModelCard policy = actor_source_.card;
  policy.normalisation = scores_->normalisation();  // so that an evaluation of its own by the same scorer scores alike
  policy.scorer = scorer_name_;
  const bool moments = !complete || !(depends_on_steps(actor_.rate) || depends_on_steps(critic_.rate));
  save_stage(session_, {"ppo", iteration, options_.iterations, complete, progress.dump()},
             {{"policy", policy, &actor_.store(), moments}, {"critic", critic, &critic_.store(), moments}}, actor_source_.text);
}

void PpoTrainer::resume(const std::string& folder) {
  const SavedModels saved(folder);
  const auto progress = nlohmann::json::parse(saved.progress());
  done_ = progress["step"];
  actor_.resume(saved, "policy", progress["actor_steps"]);
  critic_.resume(saved, "critic", progress["critic_steps"]);
  kl_.restore(progress["beta"]);
  scores_->set_normalisation({progress["gain"], progress["bias"]});
  session_.log.info("ppo    resuming after iteration {} from {}", done_, folder);
}

}  // namespace collimate::rlhf
