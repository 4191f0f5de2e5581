// Proximal policy optimisation, step by step. How a run starts and goes on is in ppo_setup.cpp, the optimizer steps of actor and critic in
// ppo_update.cpp, what is written about it in ppo_report.cpp.
#include "collimate/rlhf/ppo_trainer.hpp"

#include "collimate/data/order.hpp"
#include "collimate/rlhf/advantages.hpp"
#include "collimate/rlhf/minibatches.hpp"

namespace collimate::rlhf {

void PpoTrainer::run() {
  start();
  if (options_.iterations == 0) session_.log.info("ppo    ppo.iterations = 0: the actor stays as it is");
  progress_ = std::make_unique<Progress>(session_, "ppo", done_, options_.iterations, 1);
  run_steps(
      session_, {"ppo", done_, options_.iterations, options_.evaluate_every, options_.checkpoint_every},
      [&](std::int64_t iteration) { iterate(iteration); }, [&](std::int64_t iteration) { evaluate(iteration, "after"); },
      [&](std::int64_t iteration) { save(iteration, false); });
  finish();
}

void PpoTrainer::iterate(std::int64_t iteration) {
  progress_->begin(iteration);
  const Rollout rollout = generate(iteration);
  progress_->phase("generate", rollout.offsets.back());
  Experience experience = score(rollout);
  estimate_advantages(rollout, experience);
  progress_->phase("score", rollout.tokens());
  const Updates updates = update(iteration, rollout, experience);
  progress_->phase("update", updates.tokens);
  report(iteration, rollout, experience, updates);
  kl_.update(mean_std(experience.kl).mean, rollout.size());
}

Rollout PpoTrainer::generate(std::int64_t iteration) {
  const std::int64_t cursor = (iteration - 1) * options_.batch;
  std::vector<PromptSample> prompts;
  std::vector<std::int64_t> ids;
  for (const std::int64_t i : take(prompts_.size(), seed_, cursor, options_.batch)) {
    ids.push_back(cursor + static_cast<std::int64_t>(prompts.size()));
    prompts.push_back(prompts_.prompt(i));
  }
  return sample_responses(session_, *actor_.engine, actor_source_.text, std::move(prompts), ids,
                          {options_.temperature, options_.max_new, RandomKey(seed_, Purpose::sampling)});
}

Experience PpoTrainer::score(const Rollout& rollout) {
  const Batch batch = session_.batch(rollout.sequences);
  const auto temperature = static_cast<float>(options_.temperature);
  Experience e;
  e.old_logprob = token_logprobs(batch, session_.division(), *actor_.engine, temperature);
  e.reference_logprob = token_logprobs(batch, session_.division(), *reference_, temperature);
  e.value = per_token(batch, session_.division(), [&](auto grains, const EachValued& each) { critic_.engine->values(grains, each); });
  e.raw_score = scores_->score(rollout, batch);
  for (std::int64_t i = 0; i < rollout.size(); ++i) e.score.push_back(shape_score(e.raw_score[i], rollout.ended(i), score_options_));
  return e;
}

void PpoTrainer::estimate_advantages(const Rollout& rollout, Experience& e) {
  const Responses where = rollout.where();
  e.reward.resize(e.old_logprob.size());
  e.advantage.resize(e.old_logprob.size());
  e.returns.resize(e.old_logprob.size());
  e.kl = shape_rewards(e.reward, e.old_logprob, e.reference_logprob, e.score, where, kl_.beta(), kl_estimator_);
  if (options_.whiten_rewards) whiten(e.reward, where, Variance::biased, true);
  rlhf::estimate_advantages(e.advantage, e.returns, e.reward, e.value, where, options_.gamma, options_.lambda);
  if (options_.whiten) whiten(e.advantage, where, Variance::biased);
}

Updates PpoTrainer::update(std::int64_t iteration, const Rollout& rollout, const Experience& experience) {
  Updates done;
  for (std::int64_t epoch = 0; epoch < options_.epochs; ++epoch)
    for (const auto& samples :
         minibatches(rollout.size(), options_.minibatch, seed_, static_cast<std::uint64_t>(iteration), static_cast<std::uint32_t>(epoch))) {
      const Minibatch minibatch = take_minibatch(rollout, samples);
      if (iteration == done_ + 1 && done.critic_steps == 0) session_.warn_of_idle_ranks("ppo", minibatch.batch.grains());
      if (iteration > options_.freeze_actor) {
        const PolicyTotals totals = step_actor(minibatch, rollout, experience, {"ppo", iteration, done.actor_steps + 1});
        if (done.actor_steps++ == 0) done.first_ratio = require_first_ratio_one(totals, iteration);
        done.policy += totals;
        done.stopped = too_far(totals);
      }
      done.value += step_critic(minibatch, rollout, experience, {"ppo", iteration, done.critic_steps + 1});
      ++done.critic_steps;
      done.tokens += minibatch.batch.tokens();
      if (done.stopped) return done;
    }
  return done;
}

}  // namespace collimate::rlhf
