// What a PPO run writes: metrics, samples and evaluations.
#include <algorithm>

#include "collimate/rlhf/ppo_trainer.hpp"
#include "collimate/rlhf/statistics.hpp"

namespace collimate::rlhf {
namespace {

void add_updates(JsonLine& line, const Updates& updates, const PpoOptions& options) {
  const PolicyTotals& policy = updates.policy;
  const ValueTotals& value = updates.value;
  const auto share = [](auto sum, std::int64_t n) { return static_cast<double>(sum) / std::max<double>(1, static_cast<double>(n)); };
  line.add("actor_steps", updates.actor_steps).add("stopped_early", updates.stopped).add("first_ratio", updates.first_ratio);
  line.add("policy_loss", share(policy.loss, updates.actor_steps)).add("clip_fraction", share(policy.clipped, policy.tokens));
  line.add("approx_kl", share(policy.approx_kl, policy.tokens)).add("dual_clip_fraction", share(policy.dual_clipped, policy.tokens));
  if (options.policy.kl_coefficient > 0) line.add("loss_kl", share(policy.reference_kl, policy.tokens));
  line.add("entropy", share(policy.entropy, policy.tokens)).add("max_abs_log_ratio", policy.max_abs_log_ratio);
  line.add("value_loss", share(value.loss, updates.critic_steps)).add("value_clip_fraction", share(value.clipped, value.tokens));
}

}  // namespace

void PpoTrainer::report(std::int64_t iteration, const Rollout& rollout, const Experience& e, const Updates& updates) {
  const MeanStd raw = mean_std(e.raw_score), score = mean_std(e.score), kl = mean_std(e.kl);
  const LengthStatistics length = length_statistics(rollout.lengths());
  const LogprobDistance gap = logprob_distance(rollout.sampler_logprob, e.old_logprob, rollout.where());
  if (gap.mult_prob_error > 1.05)
    session_.log.warning("the sampler and the trainer disagree on the log-probabilities of iteration {} (mean exp |difference| {:.3f})",
                         iteration, gap.mult_prob_error);
  const std::string equal = scores_->equal_scores(rollout, e.raw_score, scores_->normalisation());
  if (!equal.empty() && !equal_before_) session_.log.warning("iteration {}: {}", iteration, equal);
  equal_before_ = !equal.empty();
  double ended = 0;
  for (std::int64_t i = 0; i < rollout.size(); ++i) ended += rollout.ended(i);
  ended /= static_cast<double>(rollout.size());
  JsonLine line;
  line.add("stage", "ppo").add("iteration", iteration);
  add_updates(line, updates, options_);
  line.add("actor_gradient_norm", actor_.last.gradient_norm).add("critic_gradient_norm", critic_.last.gradient_norm);
  line.add("score", raw.mean).add("score_std", raw.std).add("shaped_score", score.mean).add("kl", kl.mean).add("beta", kl_.beta());
  line.add("explained_variance", explained_variance(e.value, e.returns, rollout.where())).add("ended", ended);
  line.add("length", length.mean).add("length_p95", length.p95).add("length_max", length.max).add("mult_prob_error", gap.mult_prob_error);
  if (session_.hash_due(iteration) && session_.hashes_values()) {
    const auto last_hash = [&](const Learner& model) {  // an actor that is frozen yet has none of this iteration
      return model.state_hash.empty() ? hash_text(model.store(), StepName{"ppo", iteration}.text()) : model.state_hash;
    };
    line.add("state_hash", last_hash(actor_)).add("critic_hash", last_hash(critic_));
  }
  session_.metrics(line);
  write_samples(iteration, rollout, e);
  progress_->end(rollout.tokens(),
                 fmt::format("score {:.3f}  KL {:.3f}  length {:.1f}  ended {:.0f} %", raw.mean, kl.mean, length.mean, 100 * ended));
}

void PpoTrainer::write_samples(std::int64_t iteration, const Rollout& rollout, const Experience& e) const {
  const std::int64_t logged = options_.samples_logged ? std::min(options_.samples_logged, rollout.size()) : rollout.size();
  for (std::int64_t i = 0; i < logged; ++i) {
    double reward = 0;
    for (std::int64_t t = rollout.offsets[i]; t < rollout.offsets[i + 1]; ++t) reward += e.reward[t];
    JsonLine line;
    line.add("stage", "ppo").add("iteration", iteration).add("sample", rollout.sequences[i].id);
    line.add("prompt", rollout.prompts[i].text).add("response", rollout.responses[i]);
    line.add("score", e.raw_score[i]).add("reward", reward).add("kl", e.kl[i]).add("finish", rollout.ended(i) ? "eos" : "length");
    add_ids(session_, line, rollout, i);
    session_.sample(line);
  }
}

void PpoTrainer::evaluate(std::int64_t iteration, const std::string& when) {
  if (!heldout_) return;
  const PhaseTime timing(session_, "ppo", "evaluate");
  const Evaluation e = evaluate_policy(session_, *actor_.engine, reference_.get(), actor_source_.text, *heldout_, *scores_);
  session_.summary.set("ppo.reward_" + when, e.reward);
  session_.summary.set("ppo.reward_error_" + when, e.reward_error);
  session_.summary.set("ppo.raw_reward_" + when, e.raw_reward);
  session_.summary.set(when == "after" ? "ppo.kl" : "ppo.kl_before", e.kl);
  if (session_.options.evaluate.preferred) session_.summary.set("ppo.preferred_" + when, e.preferred);
  JsonLine line;
  line.add("stage", "ppo")
      .add("iteration", iteration)
      .add("eval_reward", e.reward)
      .add("eval_raw_reward", e.raw_reward)
      .add("eval_kl", e.kl)
      .add("eval_ended", e.ended)
      .add("eval_length", e.length);
  if (session_.options.evaluate.preferred) line.add("eval_preferred", e.preferred);
  session_.metrics(line);
  const std::int64_t stride = std::max<std::int64_t>(1, e.rollout.size() / std::max<std::int64_t>(1, session_.options.evaluate.shown));
  std::int64_t shown = 0;
  for (std::int64_t i = 0; i < e.rollout.size() && shown < session_.options.evaluate.shown; i += stride, ++shown) {
    write_sample(session_, JsonLine().add("stage", "evaluate").add("iteration", iteration), e, i);
    session_.summary.set(fmt::format("ppo.sample{}_prompt", shown + 1), e.rollout.prompts[i].text);
    session_.summary.set(fmt::format("ppo.sample{}_{}", shown + 1, when), e.rollout.responses[i]);
  }
  session_.log.info("ppo    held-out, {} training: score {:.3f}  KL {:.3f}  ended {:.0f} %  length {:.1f}{}", when == "after" ? fmt::format("after iteration {} of", iteration) : when, e.reward, e.kl, 100 * e.ended,
                    e.length, session_.options.evaluate.preferred ? fmt::format("  preferred {:.3f}", e.preferred) : "");
}

}  // namespace collimate::rlhf
