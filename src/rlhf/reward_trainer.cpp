#include "collimate/rlhf/reward_trainer.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "collimate/rlhf/losses.hpp"

namespace collimate::rlhf {

namespace {

// The sequences of a prompt group have numbers of their own, which key random numbers: chosen and rejected of its first pair, of its
// second ...
constexpr std::int64_t numbers_of_group = 1 << 16;

std::int64_t first_id(std::int64_t group) { return group * numbers_of_group; }

std::string pair_name(const Dataset& data, std::int64_t id) {
  return fmt::format("pair {} of prompt group {} of '{}'", id % numbers_of_group / 2, id / numbers_of_group, data.path());
}

void check_groups(const Dataset& data) {
  for (std::int64_t group = 0; group < data.size(); ++group)
    require(data.pairs(group) <= numbers_of_group / 2,
            "prompt group {} of '{}' has {} pairs, and a group can have {} at most: prepare the pairs of a prompt apart (--group-pairs none)",
            group, data.path(), data.pairs(group), numbers_of_group / 2);
}

}  // namespace

RewardTrainer::RewardTrainer(Session& session)
    : BatchTrainer(session, session.options.reward, {"reward", "reward", DatasetKind::preference, Head::value, Accept::any_or_random}),
      options_(session.options.reward) {
  check_groups(data_);
  if (heldout_) check_groups(*heldout_);
  source_.card.head = Head::value;
  source_.card.normalisation = {};
}

std::string RewardTrainer::describe() const {
  return fmt::format("reward: {} prompt groups, {} pairs, {}, {}\n{}{}", data_.size(), data_.targets(),
                     steps_text(steps_, options_.batch, data_.size(), "groups"), model_.describe(), memory_->plan.report(),
                     describe_division(session_, *model_.engine, grains_));
}

RewardTrainer::Groups RewardTrainer::load(const Dataset& data, std::span<const std::int64_t> groups) {
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

std::int64_t RewardTrainer::first_grains() const {
  const Groups groups = load(data_, samples_of(1));
  return session_.batch(groups.sequences, groups.sizes).grains();
}

void RewardTrainer::learn(std::int64_t step) {
  const Groups groups = load(data_, samples_of(step));
  const Batch batch = session_.batch(groups.sequences, groups.sizes);
  const double scale = 1.0 / static_cast<double>(groups.sizes.size());
  std::vector<double> weight;  // of each pair: one over the pairs of its prompt
  for (const std::int64_t size : groups.sizes) weight.insert(weight.end(), size / 2, 2.0 / static_cast<double>(size));
  const auto loss_of = [&](std::int64_t g, const PackedGrain& grain, GrainResult<PairTotals>& result) -> ValueLoss {
    return [&, g](auto values, auto gradient) {
      const auto members = batch.members(g);
      std::vector<float> scores, dscores(members.size());
      std::vector<Pair> pairs;
      for (std::size_t s = 0; s < members.size(); ++s) {
        scores.push_back(values[grain.offsets[s + 1] - 1]);
        const auto index = static_cast<std::int32_t>(s);
        if (s % 2) pairs.push_back({index - 1, index, groups.margins[members[s] / 2], weight[members[s] / 2]});
      }
      result.totals = pair_loss(scores, pairs, scale, dscores);
      for (std::size_t s = 0; s < members.size(); ++s) gradient[grain.offsets[s + 1] - 1] = dscores[s];
      if (const std::int64_t bad = result.totals.first_bad_pair; bad >= 0) result.bad_sample = grain.ids[2 * bad];
    };
  };
  const auto totals = update<PairTotals>(step, batch, loss_of, [&](const std::string& what, std::int64_t id) {
    return fmt::format("the {} of {} is not finite at reward step {}: lower reward.rate or look at the pair",
                       what == "loss" ? "score" : what, pair_name(data_, id), step);
  });
  const double accuracy = static_cast<double>(totals.correct) / static_cast<double>(totals.pairs);
  JsonLine line;
  line.add("stage", "reward").add("step", step).add("loss", totals.loss).add("accuracy", accuracy).add("rate", model_.last.rate);
  line.add("gradient_norm", model_.last.gradient_norm).add("groups", step * options_.batch);
  report(step, line, batch.tokens(), fmt::format("loss {:.4f}  accuracy {:.3f}", totals.loss, accuracy));
}

std::vector<float> RewardTrainer::scores(const Dataset& data, std::int64_t count) {
  std::vector<float> out;
  for (std::int64_t begin = 0; begin < count; begin += 512) {
    std::vector<std::int64_t> index(std::min<std::int64_t>(512, count - begin));
    std::iota(index.begin(), index.end(), begin);
    const Groups groups = load(data, index);
    const Batch batch = session_.batch(groups.sequences);
    const auto part =
        per_sequence(batch, session_.division(), [&](auto grains, const EachValued& each) { model_.engine->values(grains, each); });
    for (std::size_t i = 0; i < part.size(); ++i)
      if (!std::isfinite(part[i]))
        throw AgreedError(ExitCode::failure,
                          fmt::format("the score of {} is not finite: lower reward.rate", pair_name(data, groups.sequences[i].id)));
    out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

void RewardTrainer::evaluate(std::int64_t step) {
  const PhaseTime timing(session_, "reward", "evaluate");
  const std::vector<float> all = scores(*heldout_, heldout_->size());
  std::int64_t correct = 0;
  const auto pairs = static_cast<std::int64_t>(all.size() / 2);
  for (std::size_t i = 0; i + 1 < all.size(); i += 2) correct += all[i] > all[i + 1];
  const double accuracy = static_cast<double>(correct) / static_cast<double>(pairs);
  session_.summary.set("reward.accuracy", accuracy);
  session_.summary.set("reward.pairs", pairs);
  session_.metrics(JsonLine().add("stage", "reward").add("step", step).add("eval_accuracy", accuracy).add("eval_pairs", pairs));
  session_.log.info("reward held-out accuracy {:.4f} on {} pairs", accuracy, pairs);
}

// Mean 0 and standard deviation 1 over both sides of the held-out pairs (or of the first training pairs where nothing is held out).
void RewardTrainer::finish(bool whole) {
  source_.card.normalisation = {};
  if (!whole) return;
  const Dataset& data = heldout_ ? *heldout_ : data_;
  const std::vector<float> all = scores(data, std::min<std::int64_t>(data.size(), 4096));
  source_.card.normalisation = normalisation_of(std::vector<double>(all.begin(), all.end()));
}

}  // namespace collimate::rlhf
