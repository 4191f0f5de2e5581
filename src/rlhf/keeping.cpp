// Which checkpoints a stage writes, and which of them stay.
#include "collimate/rlhf/keeping.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "collimate/io/checkpoint.hpp"

namespace collimate::rlhf {
namespace {

/// By what the best checkpoint of a stage is chosen: a value of the summary.
struct Measure {
  const char *stage, *key, *name, *best;
  bool higher;  ///< is better
};
constexpr Measure measures[] = {{"sft", "sft.eval_loss", "held-out loss", "sft.best_eval_loss", false},
                                {"reward", "reward.accuracy", "held-out accuracy", "reward.best_accuracy", true},
                                {"ppo", "ppo.reward_after", "held-out reward", "ppo.best_reward", true}};

const Measure& measure_of(const std::string& stage) {
  return *std::find_if(std::begin(measures), std::end(measures), [&](const Measure& one) { return one.stage == stage; });
}

std::int64_t best_step(const Session& session, const std::string& stage) {
  const std::string key = stage + ".best_step";
  return session.options.run.keep_best && session.summary.has(key) ? static_cast<std::int64_t>(session.summary.number(key)) : 0;
}

}  // namespace

bool note_evaluation(Session& session, const std::string& stage, std::int64_t step) {
  const Measure& measure = measure_of(stage);
  if (!session.options.run.keep_best || !session.summary.has(measure.key)) return false;
  const double value = session.summary.number(measure.key);
  if (session.summary.has(measure.best)) {
    const double best = session.summary.number(measure.best);
    if (measure.higher ? value <= best : value >= best) return false;
  }
  session.summary.set(measure.best, value);
  session.summary.set(stage + ".best_step", step);
  session.log.info("{:<6} best {} so far: {:.4f}", stage, measure.name, value);
  return true;
}

void note_end(Session& session, const std::string& stage, std::int64_t steps) {
  const std::int64_t best = best_step(session, stage);
  if (best == 0) return;
  const Measure& measure = measure_of(stage);
  const std::string place = "checkpoints/" + (best == steps ? stage : fmt::format("{}-{}", stage, best));
  session.summary.set(stage + ".best_checkpoint", place);
  session.log.info("{:<6} best {}: {:.4f} after step {}, in {}/{}", stage, measure.name, session.summary.number(measure.best), best,
                   session.options.run.folder, place);
}

bool stays(const Session& session, const std::string& stage, std::int64_t step) {
  const std::int64_t every = session.options.run.keep_every;
  return (every > 0 && step % every == 0) || step == best_step(session, stage);
}

std::vector<std::string> keeping_warnings(const Session& session, const std::string& stage, bool measured) {
  if (!session.options.run.keep_best || measured) return {};
  const bool ppo = stage == "ppo";
  return {fmt::format("run.keep_best: nothing is measured before the end of {}, so its last checkpoint is its best; set {}.evaluate_every and {}",
                      stage, stage, ppo ? "evaluate.prompts" : stage + ".heldout")};
}

void save_stage(Session& session, const StageState& state, const std::vector<ModelToSave>& models, const TextRules& text) {
  const std::string& stage = state.stage;
  nlohmann::json notes = nlohmann::json::parse(state.progress);
  notes["step"] = state.step;
  notes["steps"] = state.steps;
  notes["inputs"] = nlohmann::json::parse(session.inputs);
  notes["summary"] = nlohmann::json::parse(session.summary.text());
  auto seconds = session.seconds;
  seconds[stage] += session.stage_clock.seconds();
  notes["seconds"] = seconds;
  auto peaks = session.peaks;
  peaks[stage] = std::max(peaks[stage], std::ranges::max(gather_all(session.ranks(), session.peak_memory.bytes())));
  notes["peaks"] = peaks;
  if (session.folder) notes["positions"] = nlohmann::json::parse(session.folder->positions().to_json());
  if (state.complete && !session.before_end.empty()) notes["before_end"] = nlohmann::json::parse(session.before_end);
  const std::string folder = session.checkpoint(state.complete ? stage : fmt::format("{}-{}", stage, state.step));
  const PhaseTime timing(session, stage, "checkpoint");
  save_models(folder, models, {stage, state.complete, notes.dump(), session.deck, session.build, text}, session.ranks());
  const auto last = static_cast<int>(state.complete ? session.options.run.keep_last - 1 : std::max<std::int64_t>(2, session.options.run.keep_last));
  if (session.first())
    remove_old_checkpoints(session.options.run.folder + "/checkpoints", last, stage + "-",
                           [&](std::int64_t step) { return stays(session, stage, step); });
  session.log.info("{:<6} checkpoint {}", stage, folder);
}

}  // namespace collimate::rlhf
