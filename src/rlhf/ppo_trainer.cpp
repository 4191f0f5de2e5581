#include "collimate/rlhf/ppo_trainer.hpp"

#include <cmath>

#include "collimate/data/order.hpp"
#include "collimate/rlhf/advantages.hpp"
#include "collimate/rlhf/minibatches.hpp"
#include "collimate/rlhf/statistics.hpp"

namespace collimate::rlhf {

void PpoTrainer::run() {
  plan_.commit(static_cast<std::size_t>(session_.options.machine.device_memory));
  load_models();
  session_.log.info("{}", describe());
  if (first_ == 0) {
    normalise_scores();
    evaluate(0, "before");
  }
  const Stopwatch watch;
  progress_ = std::make_unique<Progress>(session_, "ppo", first_, options_.iterations, 1);
  for (std::int64_t iteration = first_ + 1; iteration <= options_.iterations; ++iteration) {
    const Stopwatch clock;
    const Rollout rollout = generate(iteration);
    const double generated = clock.seconds();
    const Batch batch(rollout.sequences, session_.options.machine.grain_tokens, session_.data());
    Experience experience = score(rollout, batch);
    estimate_advantages(rollout, experience);
    const double scored = clock.seconds();
    update(iteration, rollout, experience);
    session_.timings(JsonLine()
                         .add("stage", "ppo")
                         .add("iteration", iteration)
                         .add("generate_seconds", generated)
                         .add("score_seconds", scored - generated)
                         .add("update_seconds", clock.seconds() - scored)
                         .add("generated_tokens_per_second", static_cast<double>(rollout.offsets.back()) / generated));
    report(iteration, rollout, experience, batch);
    const bool last = iteration == options_.iterations;
    if (last || (options_.evaluate_every && iteration % options_.evaluate_every == 0)) evaluate(iteration, "after");
    ++session_.steps_done;
    if (!last && (session_.stop_due() || (options_.checkpoint_every && iteration % options_.checkpoint_every == 0))) save(iteration, false);
    if (!last && session_.stop_due()) session_.stop();
  }
  session_.timings(JsonLine().add("stage", "ppo").add("stage_seconds", watch.seconds()));
  session_.summary.set("ppo.state_hash", hash_text(actor_->store(), session_.device));
  session_.summary.set("ppo.critic_hash", hash_text(critic_->store(), session_.device));
  save(options_.iterations, true);
}

Rollout PpoTrainer::generate(std::int64_t iteration) {
  const auto seed = static_cast<std::uint64_t>(session_.options.run.seed);
  const std::int64_t cursor = (iteration - 1) * options_.batch;
  std::vector<PromptSample> prompts;
  std::vector<std::int64_t> ids;
  for (const std::int64_t i : take(prompts_.size(), seed, cursor, options_.batch)) {
    ids.push_back(cursor + static_cast<std::int64_t>(prompts.size()));
    prompts.push_back(prompts_.prompt(i));
  }
  return sample_responses(session_, *actor_, actor_source_.text, std::move(prompts), ids,
                          {options_.temperature, options_.max_new, RandomKey(seed, Purpose::sampling)});
}

Experience PpoTrainer::score(const Rollout& rollout, const Batch& batch) {
  const auto temperature = static_cast<float>(options_.temperature);
  std::vector<float> entropy;
  const auto logprobs = [&](Engine& engine) {
    return per_token(batch, session_.data(), [&](const Grain& grain, std::span<float> out) {
      entropy.resize(out.size());
      engine.score(grain, temperature, out, entropy);
    });
  };
  Experience e;
  e.old_logprob = logprobs(*actor_);
  e.reference_logprob = logprobs(*reference_);
  e.value = per_token(batch, session_.data(), [&](const Grain& grain, std::span<float> out) { critic_->values(grain, out); });
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

void PpoTrainer::update(std::int64_t iteration, const Rollout& rollout, const Experience& experience) {
  const auto seed = static_cast<std::uint64_t>(session_.options.run.seed);
  PolicyTotals policy;
  ValueTotals value;
  std::int64_t actor_steps = 0, critic_steps = 0;
  double first_ratio = 1;
  bool stopped = false;
  for (std::int64_t epoch = 0; epoch < options_.epochs && !stopped; ++epoch)
    for (const auto& samples :
         minibatches(rollout.size(), options_.minibatch, seed, static_cast<std::uint64_t>(iteration), static_cast<std::uint32_t>(epoch))) {
      std::vector<Sequence> sequences;
      for (const std::int64_t i : samples) sequences.push_back(rollout.sequences[i]);
      const Batch batch(std::move(sequences), session_.options.machine.grain_tokens, session_.data());
      if (iteration == first_ + 1 && critic_steps == 0) session_.warn_of_idle_ranks("ppo", batch.grains());
      if (iteration > options_.freeze_actor) {
        const PolicyTotals totals = step_actor(batch, rollout, experience, samples, iteration);
        if (actor_steps++ == 0) first_ratio = std::exp(totals.max_abs_log_ratio);
        if (first_ratio != 1)
          throw AgreedError(
              ExitCode::failure,
              fmt::format("the first ratio of iteration {} is not 1 (largest |log ratio| {:.3g}): training and scoring computed "
                          "different log-probabilities; this is a defect, please report it",
                          iteration, totals.max_abs_log_ratio));
        policy += totals;
        stopped = options_.target_kl > 0 && totals.tokens > 0 && totals.approx_kl / static_cast<double>(totals.tokens) > options_.target_kl;
      }
      value += step_critic(batch, rollout, experience, samples);
      ++critic_steps;
      if (stopped) break;
    }
  metrics_ = JsonLine();
  const double tokens = std::max<double>(1, static_cast<double>(policy.tokens)),
               values = std::max<double>(1, static_cast<double>(value.tokens));
  metrics_.add("stage", "ppo").add("iteration", iteration).add("actor_steps", actor_steps).add("stopped_early", stopped);
  metrics_.add("first_ratio", first_ratio).add("policy_loss", policy.loss / std::max<double>(1, static_cast<double>(actor_steps)));
  metrics_.add("clip_fraction", static_cast<double>(policy.clipped) / tokens).add("approx_kl", policy.approx_kl / tokens);
  metrics_.add("dual_clip_fraction", static_cast<double>(policy.dual_clipped) / tokens);
  if (options_.policy.kl_coefficient > 0) metrics_.add("loss_kl", policy.reference_kl / tokens);
  metrics_.add("entropy", policy.entropy / tokens).add("max_abs_log_ratio", policy.max_abs_log_ratio);
  metrics_.add("value_loss", value.loss / static_cast<double>(critic_steps))
      .add("value_clip_fraction", static_cast<double>(value.clipped) / values);
  metrics_.add("actor_gradient_norm", actor_norm_).add("critic_gradient_norm", critic_norm_);
}

PolicyTotals PpoTrainer::step_actor(const Batch& batch, const Rollout& rollout, const Experience& e, std::span<const std::int64_t> samples,
                                    std::int64_t iteration) {
  const TokenCounts counts = count_tokens(batch.learned_lengths());
  actor_->begin_step(batch.first());
  const auto grains = over_grains(batch, session_.data(), [&](std::int64_t g) -> std::vector<double> {
    const PackedGrain grain = batch.pack(g);
    const auto spread = [&](std::span<const float> flat) { return spread_over_rows(batch, g, grain, rollout, samples, flat); };
    const std::vector<float> old = spread(e.old_logprob), advantage = spread(e.advantage), reference = spread(e.reference_logprob);
    std::vector<float> weight(grain.tokens.size());
    for (std::size_t s = 0; s < batch.members(g).size(); ++s)
      for (std::int32_t r = grain.offsets[s]; r < grain.offsets[s + 1]; ++r)
        if (grain.targets[r] >= 0) weight[r] = token_weight(aggregation_, batch.sequences()[batch.members(g)[s]].learned(), counts);
    PolicyTotals totals;
    double bad = -1;
    actor_->forward_backward(
        view_of(grain), static_cast<float>(options_.temperature), {},
        [&](std::int64_t row, auto logprob, auto entropy, auto dlogprob, auto dentropy) {
          const auto part = [&](const std::vector<float>& rows) { return std::span<const float>(rows).subspan(row, logprob.size()); };
          const PolicyTotals chunk = policy_loss({logprob, entropy, part(old), part(advantage), part(weight), part(reference)},
                                                 options_.policy, dlogprob, dentropy);
          if (chunk.first_bad_row >= 0 && bad < 0) bad = static_cast<double>(grain.samples[row + chunk.first_bad_row]);
          totals += chunk;
        });
    return {totals.loss,
            totals.entropy,
            totals.approx_kl,
            totals.reference_kl,
            totals.max_abs_log_ratio,
            static_cast<double>(totals.tokens),
            static_cast<double>(totals.clipped),
            static_cast<double>(totals.dual_clipped),
            bad};
  });
  PolicyTotals sum;
  for (const auto& grain : grains) {
    if (grain[8] >= 0)
      throw AgreedError(ExitCode::failure, fmt::format("the policy loss of sample {} is not finite in iteration {}: lower ppo.actor_rate",
                                                       grain[8], iteration));
    sum += PolicyTotals{
        grain[0], grain[1], grain[2], grain[3], grain[4], std::llround(grain[5]), std::llround(grain[6]), std::llround(grain[7]), -1};
  }
  actor_->finish_step(session_.data(), batch.grains());
  actor_norm_ = actor_optimizer_->step(actor_rate_.at(actor_optimizer_->steps() + 1), session_.device.stream()).gradient_norm;
  return sum;
}

ValueTotals PpoTrainer::step_critic(const Batch& batch, const Rollout& rollout, const Experience& e,
                                    std::span<const std::int64_t> samples) {
  const TokenCounts counts = count_tokens(batch.learned_lengths());
  critic_->begin_step(batch.first());
  const auto grains = over_grains(batch, session_.data(), [&](std::int64_t g) -> std::vector<double> {
    const PackedGrain grain = batch.pack(g);
    const std::vector<float> old = spread_over_rows(batch, g, grain, rollout, samples, e.value);
    const std::vector<float> returns = spread_over_rows(batch, g, grain, rollout, samples, e.returns);
    std::vector<float> weight(grain.tokens.size());
    for (std::size_t s = 0; s < batch.members(g).size(); ++s)
      for (std::int32_t r = grain.offsets[s]; r < grain.offsets[s + 1]; ++r)
        if (grain.targets[r] >= 0) weight[r] = token_weight(aggregation_, batch.sequences()[batch.members(g)[s]].learned(), counts);
    ValueTotals totals;
    critic_->forward_backward(view_of(grain), {}, [&](auto values, auto gradient) {
      totals = value_loss(values, old, returns, weight, options_.value, gradient);
    });
    const double bad = totals.first_bad_row < 0 ? -1 : static_cast<double>(grain.samples[totals.first_bad_row]);
    return {totals.loss, totals.squared_error, static_cast<double>(totals.tokens), static_cast<double>(totals.clipped), bad};
  });
  ValueTotals sum;
  for (const auto& grain : grains) {
    if (grain[4] >= 0)
      throw AgreedError(ExitCode::failure, fmt::format("the value of sample {} is not finite: lower ppo.critic_rate", grain[4]));
    sum += ValueTotals{grain[0], grain[1], std::llround(grain[2]), std::llround(grain[3]), -1};
  }
  critic_->finish_step(session_.data(), batch.grains());
  critic_norm_ = critic_optimizer_->step(critic_rate_.at(critic_optimizer_->steps() + 1), session_.device.stream()).gradient_norm;
  return sum;
}

std::vector<float> PpoTrainer::spread_over_rows(const Batch& batch, std::int64_t g, const PackedGrain& grain, const Rollout& rollout,
                                                std::span<const std::int64_t> samples, std::span<const float> flat) {
  std::vector<float> rows(grain.tokens.size());
  for (std::size_t s = 0; s < batch.members(g).size(); ++s) {
    const std::int64_t member = batch.members(g)[s], sample = samples[member];
    const std::int64_t first = grain.offsets[s] + batch.sequences()[member].first_row();
    for (std::int64_t t = rollout.offsets[sample]; t < rollout.offsets[sample + 1]; ++t)
      rows[first + t - rollout.offsets[sample]] = flat[t];
  }
  return rows;
}

void PpoTrainer::report(std::int64_t iteration, const Rollout& rollout, const Experience& e, const Batch& batch) {
  const MeanStd raw = mean_std(e.raw_score), score = mean_std(e.score), kl = mean_std(e.kl);
  const LengthStatistics length = length_statistics(rollout.lengths());
  const LogprobDistance gap = logprob_distance(rollout.sampler_logprob, e.old_logprob, rollout.where());
  if (gap.mult_prob_error > 1.05)
    session_.log.warning("the sampler and the trainer disagree on the log-probabilities of iteration {} (mean exp |difference| {:.3f})",
                         iteration, gap.mult_prob_error);
  double ended = 0;
  for (std::int64_t i = 0; i < rollout.size(); ++i) ended += rollout.ended(i);
  ended /= static_cast<double>(rollout.size());
  metrics_.add("score", raw.mean).add("score_std", raw.std).add("shaped_score", score.mean).add("kl", kl.mean).add("beta", kl_.beta());
  metrics_.add("explained_variance", explained_variance(e.value, e.returns, rollout.where())).add("ended", ended);
  metrics_.add("length", length.mean)
      .add("length_p95", length.p95)
      .add("length_max", length.max)
      .add("mult_prob_error", gap.mult_prob_error);
  const std::int64_t every = session_.options.run.hash_every;
  if (every && iteration % every == 0)
    metrics_.add("state_hash", hash_text(actor_->store(), session_.device))
        .add("critic_hash", hash_text(critic_->store(), session_.device));
  session_.metrics(metrics_);
  kl_.update(kl.mean, rollout.size());
  const std::int64_t logged = options_.samples_logged ? std::min(options_.samples_logged, rollout.size()) : rollout.size();
  for (std::int64_t i = 0; i < logged; ++i) {
    double reward = 0;
    for (std::int64_t t = rollout.offsets[i]; t < rollout.offsets[i + 1]; ++t) reward += e.reward[t];
    session_.sample(JsonLine()
                        .add("stage", "ppo")
                        .add("iteration", iteration)
                        .add("sample", rollout.sequences[i].id)
                        .add("prompt", rollout.prompts[i].text)
                        .add("response", rollout.responses[i])
                        .add("score", e.raw_score[i])
                        .add("reward", reward)
                        .add("kl", e.kl[i])
                        .add("finish", rollout.ended(i) ? "eos" : "length"));
  }
  progress_->step(iteration, batch.tokens(),
                  fmt::format("score {:.3f}  KL {:.3f}  length {:.1f}  ended {:.2f}", raw.mean, kl.mean, length.mean, ended));
}

}  // namespace collimate::rlhf
