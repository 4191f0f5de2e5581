// The optimizer steps of PPO's actor and critic on a minibatch.
#include <cmath>

#include "collimate/rlhf/ppo_trainer.hpp"

namespace collimate::rlhf {
namespace {

// Per-token numbers of the rollout, put on the rows of grain g that predict the tokens; 0 elsewhere.
std::vector<float> spread_over_rows(const Minibatch& minibatch, std::int64_t g, const PackedGrain& grain, const Rollout& rollout,
                                    std::span<const float> flat) {
  const Batch& batch = minibatch.batch;
  std::vector<float> rows(grain.tokens.size());
  for (std::size_t s = 0; s < batch.members(g).size(); ++s) {
    const std::int64_t member = batch.members(g)[s], sample = minibatch.samples[member];
    const std::int64_t first = grain.offsets[s] + batch.sequences()[member].first_row();
    for (std::int64_t t = rollout.offsets[sample]; t < rollout.offsets[sample + 1]; ++t)
      rows[first + t - rollout.offsets[sample]] = flat[t];
  }
  return rows;
}

}  // namespace

Minibatch PpoTrainer::take_minibatch(const Rollout& rollout, const std::vector<std::int64_t>& samples) const {
  std::vector<Sequence> sequences;
  for (const std::int64_t i : samples) sequences.push_back(rollout.sequences[i]);
  return {samples, session_.batch(std::move(sequences))};
}

PolicyTotals PpoTrainer::step_actor(const Minibatch& minibatch, const Rollout& rollout, const Experience& e, const StepName& name) {
  const Batch& batch = minibatch.batch;
  const TokenCounts counts = count_tokens(batch.learned_lengths());
  const auto loss_of = [&](std::int64_t g, const PackedGrain& grain, GrainResult<PolicyTotals>& result) -> TokenLoss {
    const auto spread = [&](std::span<const float> flat) { return spread_over_rows(minibatch, g, grain, rollout, flat); };
    return [&, old = spread(e.old_logprob), advantage = spread(e.advantage), reference = spread(e.reference_logprob),
            weight = row_weights(batch, g, grain, aggregation_, counts)](std::int64_t row, auto logprob, auto entropy, auto dlogprob,
                                                                         auto dentropy) {
      const auto part = [&](const std::vector<float>& rows) { return std::span<const float>(rows).subspan(row, logprob.size()); };
      const PolicyTotals chunk = policy_loss({logprob, entropy, part(old), part(advantage), part(weight), part(reference)}, options_.policy,
                                             dlogprob, dentropy);
      if (chunk.first_bad_row >= 0 && result.bad_sample < 0) result.bad_sample = grain.samples[row + chunk.first_bad_row];
      result.totals += chunk;
    };
  };
  const StepOptions how{.temperature = static_cast<float>(options_.temperature)};
  return optimizer_step<PolicyTotals>(session_, actor_, name, batch, how, loss_of, [&](const std::string& what, std::int64_t sample) {
    return fmt::format("the policy {} of sample {} is not finite in iteration {}: lower ppo.actor_rate", what, sample, name.step);
  });
}

ValueTotals PpoTrainer::step_critic(const Minibatch& minibatch, const Rollout& rollout, const Experience& e, const StepName& name) {
  const Batch& batch = minibatch.batch;
  const TokenCounts counts = count_tokens(batch.learned_lengths());
  const auto loss_of = [&](std::int64_t g, const PackedGrain& grain, GrainResult<ValueTotals>& result) -> ValueLoss {
    const auto spread = [&](std::span<const float> flat) { return spread_over_rows(minibatch, g, grain, rollout, flat); };
    return [&, old = spread(e.value), returns = spread(e.returns), weight = row_weights(batch, g, grain, aggregation_, counts)](auto values,
                                                                                                                               auto gradient) {
      result.totals = value_loss(values, old, returns, weight, options_.value, gradient);
      if (const std::int64_t bad = result.totals.first_bad_row; bad >= 0) result.bad_sample = grain.samples[bad];
    };
  };
  return optimizer_step<ValueTotals>(session_, critic_, name, batch, {}, loss_of, [&](const std::string& what, std::int64_t sample) {
    return fmt::format("the value{} of sample {} is not finite in iteration {}: lower ppo.critic_rate", what == "loss" ? "" : "'s " + what,
                       sample, name.step);
  });
}

double PpoTrainer::require_first_ratio_one(const PolicyTotals& first, std::int64_t iteration) const {
  const double ratio = std::exp(first.max_abs_log_ratio);
  if (ratio != 1)
    throw AgreedError(ExitCode::failure,
                      fmt::format("the first ratio of iteration {} is not 1 (largest |log ratio| {:.3g}): training and scoring computed "
                                  "different log-probabilities; this is a defect, please report it",
                                  iteration, first.max_abs_log_ratio));
  return ratio;
}

bool PpoTrainer::too_far(const PolicyTotals& totals) const {
  return options_.target_kl > 0 && totals.tokens > 0 && totals.approx_kl / static_cast<double>(totals.tokens) > options_.target_kl;
}

}  // namespace collimate::rlhf
