#include "collimate/rlhf/reward_trainer.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "collimate/data/order.hpp"
#include "collimate/rlhf/losses.hpp"
#include "collimate/rlhf/supervised_trainer.hpp"

namespace collimate::rlhf {

namespace {

// The sequences of a prompt group are numbered from here: chosen and rejected of its first pair, of its second ...
std::int64_t first_id(std::int64_t group) { return group << 16; }

std::string pair_name(const Dataset& data, std::int64_t id) {
  return fmt::format("pair {} of prompt group {} of '{}'", (id & 0xffff) / 2, id >> 16, data.path());
}

}  // namespace

RewardTrainer::RewardTrainer(Session& session)
    : session_(session),
      options_(session.options.reward),
      data_(session.path(options_.data)),
      source_(find_source(session, "reward.init", options_.init, Head::policy, Accept::any_or_random, data_)),
      steps_(steps_of(options_.steps, options_.epochs, data_.size(), options_.batch)),
      plan_(session.device),
      workspace_(plan_),
      rate_(options_.optimizer.learning_rate(steps_)) {
  data_.check_kind(DatasetKind::preference);
  match_text(source_, data_, "reward.init = " + options_.init);
  check_lengths(session, data_, source_.card.config);
  source_.card.head = Head::value;
  source_.card.normalisation = {};
  if (!options_.heldout.empty()) {
    heldout_.emplace(session.path(options_.heldout));
    heldout_->check_kind(DatasetKind::preference);
    match_text(source_, *heldout_, "reward.data");
    check_lengths(session, *heldout_, source_.card.config);
  }
  const std::int64_t grains = grain_bound(options_.batch, most_tokens(data_, options_.batch), session.options.machine.grain_tokens);
  engine_ = std::make_unique<Engine>("reward", source_.card.config, Head::value, source_.card.shards,
                                     EngineUse{.rows = session.most_rows(), .most_grains = grains}, session.data().size(), workspace_);
  workspace_.reserve();
  plan_.check_limit(static_cast<std::size_t>(session.options.machine.device_memory));
}

std::string RewardTrainer::describe() const {
  return fmt::format("reward: {} prompt groups, {} pairs, {} steps of {} groups, {} parameters\n{}", data_.size(), data_.targets(), steps_,
                     options_.batch, engine_->store().layout().parameter_count(), plan_.report());
}

RewardTrainer::Groups RewardTrainer::load(const Dataset& data, std::span<const std::int64_t> groups) const {
  Groups out;
  for (const std::int64_t g : groups) {
    const PreferenceGroup group = data.preference(g);
    const auto prompt = static_cast<std::int64_t>(group.prompt.size());
    std::int64_t id = first_id(g);
    for (const PreferencePair& pair : group.pairs) {
      for (const auto* answer : {&pair.chosen, &pair.rejected}) {
        std::vector<std::int32_t> tokens = group.prompt;
        tokens.insert(tokens.end(), answer->begin(), answer->end());
        out.sequences.push_back({id++, std::move(tokens), prompt});
      }
      out.margins.push_back(static_cast<float>(pair.margin));
    }
    out.sizes.push_back(2 * static_cast<std::int64_t>(group.pairs.size()));
  }
  return out;
}

void RewardTrainer::run() {
  plan_.commit(static_cast<std::size_t>(session_.options.machine.device_memory));
  engine_->prepare();
  optimizer_ = std::make_unique<Optimizer>(engine_->store(), options_.optimizer.how(), options_.optimizer.clip);
  if (const auto found = find_resume(session_, "reward"))
    resume(found->folder);
  else
    load_source(session_, source_, engine_->store());
  session_.log.info("{}", describe());
  const Stopwatch watch;
  progress_ = std::make_unique<Progress>(session_, "reward", first_, steps_, options_.log_every);
  for (std::int64_t step = first_ + 1; step <= steps_; ++step) {
    learn(step);
    const bool last = step == steps_;
    if (heldout_ && (last || (options_.evaluate_every && step % options_.evaluate_every == 0))) evaluate(step);
    ++session_.steps_done;
    if (!last && (session_.stop_due() || (options_.checkpoint_every && step % options_.checkpoint_every == 0))) save(step, false);
    if (!last && session_.stop_due()) session_.stop();
  }
  normalise();
  session_.timings(JsonLine().add("stage", "reward").add("stage_seconds", watch.seconds()));
  session_.summary.set("reward.state_hash", hash_text(engine_->store(), session_.device));
  save(steps_, true);
}

void RewardTrainer::learn(std::int64_t step) {
  const auto seed = static_cast<std::uint64_t>(session_.options.run.seed);
  const auto taken = take(data_.size(), seed, (step - 1) * options_.batch, options_.batch);
  const Groups groups = load(data_, taken);
  const Batch batch(groups.sequences, session_.options.machine.grain_tokens, session_.data(), groups.sizes);
  const double scale = 1.0 / static_cast<double>(groups.sizes.size());
  std::vector<double> weight;  // of each pair: one over the pairs of its prompt
  for (const std::int64_t size : groups.sizes) weight.insert(weight.end(), size / 2, 2.0 / static_cast<double>(size));
  if (step == first_ + 1) session_.warn_of_idle_ranks("reward", batch.grains());
  engine_->begin_step(batch.first());
  const auto grains = over_grains(batch, session_.data(), [&](std::int64_t g) -> std::vector<double> {
    const PackedGrain grain = batch.pack(g);
    PairTotals totals;
    engine_->forward_backward(view_of(grain), {source_.card.config.dropout, seed, step}, [&](auto values, auto gradient) {
      const auto members = batch.members(g);
      std::vector<float> scores, dscores(members.size());
      std::vector<Pair> pairs;
      for (std::size_t s = 0; s < members.size(); ++s) {
        scores.push_back(values[grain.offsets[s + 1] - 1]);
        const auto index = static_cast<std::int32_t>(s);
        if (s % 2) pairs.push_back({index - 1, index, groups.margins[members[s] / 2], weight[members[s] / 2]});
      }
      totals = pair_loss(scores, pairs, scale, dscores);
      for (std::size_t s = 0; s < members.size(); ++s) gradient[grain.offsets[s + 1] - 1] = dscores[s];
    });
    const double bad = totals.first_bad_pair < 0 ? -1 : static_cast<double>(grain.ids[2 * totals.first_bad_pair]);
    return {totals.loss, static_cast<double>(totals.correct), static_cast<double>(totals.pairs), bad};
  });
  double loss = 0, correct = 0, pairs = 0;
  for (const auto& grain : grains) {
    if (grain[3] >= 0)
      throw AgreedError(ExitCode::failure,
                        fmt::format("the score of {} is not finite at reward step {}: lower reward.rate or look at the pair",
                                    pair_name(data_, static_cast<std::int64_t>(grain[3])), step));
    loss += grain[0];
    correct += grain[1];
    pairs += grain[2];
  }
  engine_->finish_step(session_.data(), batch.grains());
  const StepReport report = optimizer_->step(rate_.at(step), session_.device.stream());
  JsonLine line;
  line.add("stage", "reward").add("step", step).add("loss", loss).add("accuracy", correct / pairs).add("rate", report.rate);
  line.add("gradient_norm", report.gradient_norm).add("groups", step * options_.batch);
  const std::int64_t every = session_.options.run.hash_every;
  if (every && step % every == 0) line.add("state_hash", hash_text(engine_->store(), session_.device));
  session_.metrics(line);
  progress_->step(
      step, batch.tokens(),
      fmt::format("loss {:.4f}  accuracy {:.3f}  norm {:.3f}  rate {:.2e}", loss, correct / pairs, report.gradient_norm, report.rate));
}

std::vector<float> RewardTrainer::scores(const Dataset& data, std::int64_t count) {
  std::vector<float> out;
  for (std::int64_t begin = 0; begin < count; begin += 512) {
    std::vector<std::int64_t> index(std::min<std::int64_t>(512, count - begin));
    std::iota(index.begin(), index.end(), begin);
    const Groups groups = load(data, index);
    const Batch batch(groups.sequences, session_.options.machine.grain_tokens, session_.data());
    const auto part =
        per_sequence(batch, session_.data(), [&](const Grain& grain, std::span<float> values) { engine_->values(grain, values); });
    for (std::size_t i = 0; i < part.size(); ++i)
      if (!std::isfinite(part[i]))
        throw AgreedError(ExitCode::failure,
                          fmt::format("the score of {} is not finite: lower reward.rate", pair_name(data, groups.sequences[i].id)));
    out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

void RewardTrainer::evaluate(std::int64_t step) {
  const std::vector<float> all = scores(*heldout_, heldout_->size());
  std::int64_t correct = 0;
  const auto pairs = static_cast<std::int64_t>(all.size() / 2);
  for (std::size_t i = 0; i + 1 < all.size(); i += 2) correct += all[i] > all[i + 1];
  const double accuracy = static_cast<double>(correct) / static_cast<double>(pairs);
  session_.summary.set("reward.accuracy", accuracy);
  session_.summary.set("reward.pairs", pairs);
  session_.metrics(JsonLine().add("stage", "reward").add("step", step).add("eval_accuracy", accuracy).add("eval_pairs", pairs));
  session_.log.info("reward held-out accuracy {:.4f} of {} pairs", accuracy, pairs);
}

// Mean 0 and standard deviation 1 over both sides of the held-out pairs (or of the first training pairs where nothing is held out).
void RewardTrainer::normalise() {
  const Dataset& data = heldout_ ? *heldout_ : data_;
  const std::vector<float> all = scores(data, std::min<std::int64_t>(data.size(), 4096));
  source_.card.normalisation = normalisation_of(std::vector<double>(all.begin(), all.end()));
}

void RewardTrainer::save(std::int64_t step, bool complete) {
  save_stage(session_, "reward", step, complete, {{"reward", source_.card, &engine_->store(), !complete}}, source_.text);
}

void RewardTrainer::resume(const std::string& folder) {
  const SavedModels saved(folder);
  first_ = nlohmann::json::parse(saved.progress())["step"];
  saved.load("reward", engine_->store(), true);
  optimizer_->set_steps(first_);
  session_.log.info("reward goes on after step {} of {}", first_, folder);
}

}  // namespace collimate::rlhf
