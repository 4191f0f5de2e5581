#include "collimate/rlhf/training.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "collimate/base/text.hpp"
#include "collimate/data/order.hpp"
#include "collimate/rlhf/restart.hpp"

namespace collimate::rlhf {
namespace {

// The most tokens that `batch` samples of a dataset can have together.
std::int64_t most_tokens(const Dataset& data, std::int64_t batch) {
  std::vector<std::int64_t> rows(data.size());
  for (std::int64_t i = 0; i < data.size(); ++i) rows[i] = data.rows(i);
  std::sort(rows.begin(), rows.end(), std::greater<>());
  const std::int64_t epochs = batch / data.size(), rest = batch % data.size();
  const auto sum = [&](auto end) { return std::accumulate(rows.begin(), end, std::int64_t{0}); };
  return epochs * sum(rows.end()) + sum(rows.begin() + rest);
}

}  // namespace

void Learner::start(const OptimizerOptions& options) {
  engine->prepare();
  optimizer = std::make_unique<Optimizer>(store(), options.how(), options.clip);
}

void Learner::resume(const SavedModels& saved, const std::string& model, std::int64_t steps) {
  if (engine->adapters())
    saved.load_adapters(model, store(), engine->store(), true);
  else
    saved.load(model, store(), true);
  store().round_values();
  optimizer->set_steps(steps);
}

std::string Learner::describe() const {
  const std::int64_t own = engine->store().layout().parameter_count(), learn = store().layout().parameter_count();
  if (&engine->learning() == &engine->store()) return fmt::format("{} parameters", own);
  return fmt::format("{} frozen and {} trained parameters", own, learn);
}

std::int64_t steps_of(const TrainingOptions& o, std::int64_t samples) {
  if (o.steps) return o.steps;
  const double wanted = o.epochs * static_cast<double>(samples);
  const auto all = static_cast<std::int64_t>(std::ceil(wanted * (1 - 1e-12)));  // 1.1 x 10 is 11, and not a little more
  return std::max<std::int64_t>(1, (all + o.batch - 1) / o.batch);
}

std::string steps_text(std::int64_t steps, std::int64_t batch, std::int64_t samples, const std::string& noun) {
  std::string text = fmt::format("{} of {} {} ({:.3g} epochs)", counted(steps, "step"), batch, noun, static_cast<double>(steps * batch) / static_cast<double>(samples));
  if (const std::int64_t left = samples - steps * batch; left > 0) text += fmt::format(", {} {} are never used", left, noun);
  return text;
}

std::vector<std::string> warmup_warnings(const std::string& option, const LearningRate& rate) {
  if (rate.warmup <= rate.steps) return {};
  return {fmt::format("{} = {} is longer than the {} optimizer steps of the stage, so the rate never reaches its peak of {}: shorten it",
                      option, rate.warmup, rate.steps, rate.peak)};
}

std::int64_t first_without(std::int64_t n, const std::function<bool(std::int64_t)>& fine) {
  std::int64_t good = 0, bad = n;  // counts
  while (bad - good > 1) {
    const std::int64_t middle = good + (bad - good) / 2;
    (fine(middle) ? good : bad) = middle;
  }
  return bad - 1;
}

void tell_pending_steps(const Session& session, const std::string& stage, const std::vector<const Learner*>& models) {
  ParameterStore::PendingSteps sum;
  for (const Learner* model : models) {
    sum.at_fetch += model->store().pending_steps().at_fetch;
    sum.settled += model->store().pending_steps().settled;
  }
  if (const std::int64_t all = sum.at_fetch + sum.settled; all > 0)
    session.log.info("{:6} optimizer on the host: {} of {} stepped when they were used next ({:.0f} %)", stage, sum.at_fetch, counted(all, "unit"),
                     100 * static_cast<double>(sum.at_fetch) / static_cast<double>(all));
}

void hash_start(const Session& session, const std::string& stage, const std::vector<Engine*>& engines) {
  if (!session.hash_due(0) || !session.hashes_values()) return;
  for (Engine* engine : engines) {
    if (engine && engine->owns_store()) write_hashes(session, {stage}, engine->store(), Kind::value);
    if (engine && engine->adapters()) write_hashes(session, {stage}, *engine->adapters(), Kind::value);
  }
}

std::vector<float> row_weights(const Batch& batch, std::int64_t g, const PackedGrain& grain, Aggregation aggregation,
                               const TokenCounts& counts) {
  std::vector<float> weight(grain.tokens.size());
  for (std::size_t s = 0; s < batch.members(g).size(); ++s)
    for (std::int32_t r = grain.offsets[s]; r < grain.offsets[s + 1]; ++r)
      if (grain.targets[r] >= 0) weight[r] = token_weight(aggregation, batch.sequences()[batch.members(g)[s]].learned(), counts);
  return weight;
}

void run_steps(Session& session, const Schedule& schedule, const std::function<void(std::int64_t)>& learn,
               const std::function<void(std::int64_t)>& evaluate, const std::function<void(std::int64_t)>& save) {
  const auto due = [](std::int64_t step, std::int64_t every) { return every && step % every == 0; };
  const auto evaluate_at_end = [&](std::int64_t step) {  // where a longer stage would not
    session.before_end.clear();
    if (due(step, schedule.evaluate_every)) return;
    if (session.folder)
      session.before_end = JsonLine().add_raw("positions", session.folder->positions().to_json()).add_raw("summary", session.summary.text()).text();
    evaluate(step);
    note_evaluation(session, schedule.stage, step);
  };
  for (std::int64_t step = schedule.done + 1; step <= schedule.steps; ++step) {
    learn(step);
    bool best = false;
    if (due(step, schedule.evaluate_every)) {
      evaluate(step);
      best = note_evaluation(session, schedule.stage, step);
    }
    const bool last = step == schedule.steps;
    if (last) evaluate_at_end(step);
    ++session.steps_done;
    if (last) return;
    if (best || session.stop_due() || due(step, schedule.checkpoint_every) || due(step, session.options.run.keep_every)) save(step);
    if (session.stop_due()) session.stop();
  }
  if (schedule.steps > 0) evaluate_at_end(schedule.steps);  // a longer stage was stopped here, and is shortened
}

BatchTrainer::BatchTrainer(Session& session, const TrainingOptions& options, Spec spec)
    : session_(session),
      spec_(std::move(spec)),
      data_(open_dataset(session, spec_.stage + ".data", options.data, spec_.data)),
      source_(find_source(session, spec_.stage + ".init", options.init, Head::policy, spec_.start, data_)),
      steps_(steps_of(options, data_.size())),
      options_(options) {
  match_text(source_, data_, spec_.stage + ".init = " + options.init);
  check_lengths(session, data_, source_.card.config);
  if (!options.heldout.empty()) {
    heldout_.emplace(open_dataset(session, spec_.stage + ".heldout", options.heldout, spec_.data));
    match_text(source_, *heldout_, spec_.stage + ".data");
    check_lengths(session, *heldout_, source_.card.config);
  }
  grains_ = grain_bound(options.batch, most_tokens(data_, options.batch), session.options.machine.grain_tokens);
  model_.rate = options.optimizer.learning_rate(steps_);
}

void BatchTrainer::plan() {
  model_.engine.reset();
  memory_.emplace(session_.device);
  model_.engine =
      std::make_unique<Engine>(spec_.model, source_.card.config, spec_.head, session_.division(),
                               EngineUse{.rows = session_.most_rows(),
                                         .most_grains = grains_,
                                         .group = session_.group(grains_),
                                         .recompute = session_.recompute(),
                                         .lora = session_.options.lora.of(spec_.stage),
                                         .values = session_.values()},
                               memory_->workspace);
  memory_->workspace.reserve();
  session_.check_fits(memory_->plan);
}

Traffic BatchTrainer::traffic() const { return {model_.engine->traffic_of_step(session_.of_a_replica(grains_)), steps_, "optimizer step"}; }

std::vector<std::string> BatchTrainer::warnings() const {
  const std::string& stage = spec_.stage;
  std::vector<std::string> all = warmup_warnings(stage + ".warmup", model_.rate);
  if (options_.batch > data_.size())
    all.push_back(fmt::format("{}.batch = {} is more than the {} {} of '{}', so every step uses some of them more than once", stage,
                              options_.batch, data_.size(), spec_.data == DatasetKind::preference ? "prompt groups" : "samples",
                              data_.path()));
  std::error_code error;
  if (heldout_ && std::filesystem::equivalent(data_.path(), heldout_->path(), error))
    all.push_back(fmt::format("{0}.heldout is {0}.data: held-out figures are measured on the training data", stage));
  for (std::string& one : keeping_warnings(session_, stage, heldout_.has_value() && options_.evaluate_every > 0 && options_.evaluate_every < steps_))
    all.push_back(std::move(one));
  return all;
}

void BatchTrainer::run() {
  if (!memory_) plan();
  memory_->plan.commit(session_.options.machine.caps());
  model_.start(options_.optimizer);
  load_source(session_, source_, *model_.engine);
  source_.card.adapters = note_of(session_, spec_.stage, source_, *model_.engine);
  if (const auto found = find_resume(session_, spec_.stage)) resume(found->folder);
  if (done_ == 0) hash_start(session_, spec_.stage, {model_.engine.get()});
  session_.log.info("{}", describe());
  progress_ = std::make_unique<Progress>(session_, spec_.stage, done_, steps_, options_.log_every);
  run_steps(
      session_, {spec_.stage, done_, steps_, options_.evaluate_every, options_.checkpoint_every},
      [&](std::int64_t step) {
        progress_->begin(step);
        learn(step);
      },
      [&](std::int64_t step) {
        if (heldout_) evaluate(step);
      },
      [&](std::int64_t step) { save(step, false); });
  tell_pending_steps(session_, spec_.stage, {&model_});
  session_.summary.set(spec_.stage + ".state_hash", hash_text(model_.store(), "end of " + spec_.stage));
  note_end(session_, spec_.stage, steps_);
  save(steps_, true);
}

std::vector<std::int64_t> BatchTrainer::samples_of(std::int64_t step, bool shuffle) const {
  const auto seed = static_cast<std::uint64_t>(session_.options.run.seed);
  return take(data_.size(), seed, (step - 1) * options_.batch, options_.batch, shuffle);
}

Dropout BatchTrainer::dropout_of(std::int64_t step) const {
  return {source_.card.config.dropout, static_cast<std::uint64_t>(session_.options.run.seed), step, source_.card.adapters.lora.dropout};
}

void BatchTrainer::report(std::int64_t step, JsonLine line, std::int64_t tokens, const std::string& details) {
  progress_->phase("update", tokens);
  if (session_.hash_due(step) && session_.hashes_values()) line.add("state_hash", model_.state_hash);
  session_.metrics(line);
  progress_->end(tokens, fmt::format("{}  grad norm {:.3f}  rate {:.2e}", details, model_.last.gradient_norm, model_.last.rate));
}

void BatchTrainer::save(std::int64_t step, bool complete) {
  const bool whole = complete || stays(session_, spec_.stage, step);
  finish(whole);
  // A finished stage can go on to more steps where these do not change the rates of those that are done.
  const bool moments = !complete || !depends_on_steps(model_.rate);
  save_stage(session_, {spec_.stage, step, steps_, complete, nlohmann::json{{"normalised", whole}}.dump()},
             {{spec_.model, source_.card, &model_.store(), moments}}, source_.text);
}

void BatchTrainer::resume(const std::string& folder) {
  const SavedModels saved(folder);
  done_ = nlohmann::json::parse(saved.progress())["step"];
  model_.resume(saved, spec_.model, done_);
  session_.log.info("{:<6} resuming after step {} from {}", spec_.stage, done_, folder);
}

}  // namespace collimate::rlhf
