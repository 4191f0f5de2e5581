#include "collimate/rlhf/restart.hpp"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/checksum.hpp"
#include "collimate/base/text.hpp"
#include "collimate/rlhf/ppo_trainer.hpp"
#include "collimate/rlhf/stage_names.hpp"
#include "collimate/rlhf/training.hpp"

namespace collimate::rlhf {
namespace {

using nlohmann::json;

// A line of a resolved deck.
struct DeckValue {
  std::string section, key, text;  // text: "rate = 0.1"
  std::string name() const { return section.empty() ? key : section + "." + key; }
};

std::vector<DeckValue> values_of(const std::string& deck) {
  std::vector<DeckValue> values;
  std::istringstream lines(deck);
  std::string section;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("[")) section = line.substr(1, line.find(']') - 1);
    else if (!line.empty()) values.push_back({section, line.substr(0, line.find(" = ")), line});
  }
  return values;
}

// What a deck gives an option; nothing where it has no such option.
std::optional<std::string> text_of(const std::vector<DeckValue>& values, const std::string& name) {
  const auto found = std::find_if(values.begin(), values.end(), [&](const DeckValue& value) { return value.name() == name; });
  return found == values.end() ? std::nullopt : std::optional(found->text);
}

// An option that two decks give different values.
struct Difference {
  std::string name, section, before, now;
  std::string text() const { return fmt::format("[{}] '{}' then, '{}' now", section, before, now); }
};

// Of a checkpoint's deck and the one of this start. An option that the version which wrote the checkpoint did not have counts as its default.
std::vector<Difference> differences(const Session& session, const SavedModels& saved) {
  Options defaults;
  OptionTable table;
  defaults.declare(table);
  const auto before = values_of(saved.deck()), usual = values_of(table.resolved_deck());
  std::vector<Difference> all;
  for (const DeckValue& now : values_of(session.deck)) {
    auto then = text_of(before, now.name());
    if (!then) then = text_of(usual, now.name());
    if (then && *then != now.text) all.push_back({now.name(), now.section, *then, now.text});
  }
  return all;
}

[[noreturn]] void refuse(const SavedModels& saved, const Difference& difference) {
  fail("the checkpoint '{}' was made with another deck ({}): restart with the same deck, or start over with --restart replace",
       saved.reader().folder(), difference.text());
}

std::vector<StageInput> all_inputs(const Options& o) {
  std::vector<StageInput> all;
  for (const char* stage : learning_stages)
    for (StageInput& input : inputs_of(o, stage)) all.push_back(std::move(input));
  return all;
}

// "" where there is nothing, such as random numbers or a stage that has not run yet. Errors begin with the option.
std::string checksum_of(const Session& session, const StageInput& input) {
  if (input.value.empty()) return "";
  try {
    if (input.kind == InputKind::dataset) return Dataset(session.path(input.value), false).checksum();
    if (input.kind == InputKind::file) return checksum_text(checksum(read_file(session.path(input.value))));
    const auto folder = stored_checkpoint(session, input.value);
    return folder ? checksum_text(checksum(read_file(*folder + "/manifest.json"))) : "";
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", input.option, error.what()), error.place());
  }
}

bool is_path(const Options& o, const std::string& option) {
  const auto all = all_inputs(o);
  return std::any_of(all.begin(), all.end(), [&](const StageInput& input) { return input.option == option; });
}

std::vector<std::string> lengths_of(const std::string& stage) {
  if (stage == "ppo") return {"ppo.iterations"};
  return {stage + ".steps", stage + ".epochs"};
}

bool contains(const std::vector<std::string>& list, const std::string& word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

bool is_run(const Session& session, const std::string& stage) { return contains(session.options.run.stages, stage); }

// How many steps a stage shall have: as many as the deck says, or as the epochs need. text: the option that says so.
struct Length {
  std::int64_t steps;
  std::string text;
};
Length length_of(const Session& session, const std::string& stage) {
  const Options& o = session.options;
  if (stage == "ppo") return {o.ppo.iterations, fmt::format("ppo.iterations = {}", o.ppo.iterations)};
  const bool sft = stage == "sft";
  const TrainingOptions& training = sft ? static_cast<const TrainingOptions&>(o.sft) : o.reward;
  if (training.steps) return {training.steps, fmt::format("{}.steps = {}", stage, training.steps)};
  const Dataset data = open_dataset(session, stage + ".data", training.data, sft ? DatasetKind::supervised : DatasetKind::preference);
  const std::int64_t steps = steps_of(training, data.size());
  return {steps, fmt::format("{}.epochs = {} ({} steps)", stage, training.epochs, steps)};
}

// Of a model that learns in a stage: its rate with so many steps, and how many optimizer steps are done.
struct Pace {
  std::string schedule;  // the option
  std::function<LearningRate(std::int64_t)> rate;
  std::int64_t done;
};
std::vector<Pace> paces(const Options& o, const std::string& stage, const json& progress) {
  if (stage == "ppo")
    return {{"ppo.actor_schedule", [&](std::int64_t n) { return actor_rate(o.ppo, n); }, progress["actor_steps"]},
            {"ppo.critic_schedule", [&](std::int64_t n) { return critic_rate(o.ppo, n); }, progress["critic_steps"]}};
  const OptimizerOptions& optimizer = stage == "sft" ? o.sft.optimizer : o.reward.optimizer;
  return {{stage + ".schedule", [&](std::int64_t n) { return optimizer.learning_rate(n); }, progress["step"]}};
}

bool equal_until(std::int64_t step, const LearningRate& a, const LearningRate& b) {
  if (!depends_on_steps(a)) return true;
  for (std::int64_t i = 1; i <= step; ++i)
    if (a.at(i) != b.at(i)) return false;
  return true;
}

// Whether a stage can go on to as many steps as the deck asks for.
void check_length(const Session& session, const std::string& stage, const Resume& resume) {
  const SavedModels saved(resume.folder);
  const json progress = json::parse(saved.progress());
  const Length wanted = length_of(session, stage);
  const std::int64_t done = progress["step"], before = progress.value("steps", saved.complete() ? done : wanted.steps);
  const char* const steps = stage == "ppo" ? "iterations" : "steps";
  require(wanted.steps >= done, "{} is less than the {} {} that the checkpoint '{}' has done: ask for more, or start over with --restart replace",
          wanted.text, done, steps, resume.folder);
  if (wanted.steps != before)
    for (const Pace& pace : paces(session.options, stage, progress))
      require(equal_until(pace.done, pace.rate(before), pace.rate(wanted.steps)) && (!saved.complete() || saved.can_go_on()),
              "{}: the {} {} of the checkpoint '{}' were done on the way to {}, at learning rates that depend on that number ({}), so a run of "
              "{} would have other ones: keep {}, take a new run.folder and start there from this checkpoint, or start over with --restart "
              "replace. With a constant rate a stage can be lengthened",
              wanted.text, done, steps, resume.folder, before, pace.schedule, wanted.steps, before);
  if (!saved.complete()) return;
  const auto lines = [](const json& of) { return of["positions"].value("metrics", std::int64_t{0}); };
  for (const std::string other : learning_stages) {
    if (other == stage) continue;
    const auto later = find_resume(session, other);
    if (!later) continue;
    const json then = json::parse(SavedModels(later->folder).progress());
    require(lines(then) < lines(progress),
            "{} is more than the {} {} of the checkpoint '{}', and the stage {} has begun after them: take a new run.folder, or start over with "
            "--restart replace",
            wanted.text, done, steps, resume.folder, other);
  }
}

}  // namespace

std::vector<StageInput> inputs_of(const Options& o, const std::string& stage) {
  const StageInput reward = {"ppo.reward", o.ppo.scorer.kind == "model" ? o.ppo.reward : "", InputKind::checkpoint},
                   words = {"ppo.scorer_lexicon", o.ppo.scorer.kind == "lexicon" ? o.ppo.scorer.lexicon : "", InputKind::file};
  if (stage == "sft")
    return {{"sft.data", o.sft.data, InputKind::dataset, true},
            {"sft.heldout", o.sft.heldout, InputKind::dataset},
            {"sft.init", o.sft.init, InputKind::checkpoint}};
  if (stage == "reward")
    return {{"reward.data", o.reward.data, InputKind::dataset, true},
            {"reward.heldout", o.reward.heldout, InputKind::dataset},
            {"reward.init", o.reward.init, InputKind::checkpoint}};
  if (stage == "ppo")
    return {{"ppo.prompts", o.ppo.prompts, InputKind::dataset, true},
            {"evaluate.prompts", o.evaluate.prompts, InputKind::dataset},
            {"ppo.actor", o.ppo.actor, InputKind::checkpoint},
            {"ppo.critic", o.ppo.critic, InputKind::checkpoint},
            {"ppo.reference", o.ppo.reference, InputKind::checkpoint},
            reward,
            words};
  if (stage == "evaluate")
    return {{"evaluate.prompts", o.evaluate.prompts, InputKind::dataset, true},
            {"evaluate.model", o.evaluate.model, InputKind::checkpoint},
            {"evaluate.reference", o.evaluate.reference, InputKind::checkpoint},
            reward,
            words};
  return {};
}

std::string input_checksums(const Session& session, const std::string& stage) {
  json sums = json::object();
  const auto add = [&](const StageInput& input) {
    if (const std::string sum = checksum_of(session, input); !sum.empty()) sums[input.option] = sum;
  };
  for (const StageInput& input : inputs_of(session.options, stage)) add(input);
  for (const StageInput& input : all_inputs(session.options)) {
    if (sums.contains(input.option) || (input.kind == InputKind::checkpoint && is_learning_stage(input.value))) continue;
    try {
      add(input);
    } catch (const Error&) {
      continue;  // of a stage that comes later, or not at all
    }
  }
  return sums.dump();
}

std::optional<Resume> find_resume(const Session& session, const std::string& stage) {
  if (session.options.run.restart != "auto") return std::nullopt;
  const std::string done = session.checkpoint(stage);
  if (std::filesystem::exists(done)) {
    const SavedModels saved(done);
    const auto changed = differences(session, saved);
    const auto lengths = lengths_of(stage);
    const bool asked = is_run(session, stage) && std::any_of(changed.begin(), changed.end(), [&](const Difference& difference) {
                         return contains(lengths, difference.name);
                       });
    const json progress = json::parse(saved.progress());
    if (saved.complete()) return Resume{done, !asked || length_of(session, stage).steps == progress["step"]};
  }
  const std::string last = latest_checkpoint(session.options.run.folder + "/checkpoints", stage + "-");
  if (last.empty()) return std::nullopt;
  const SavedModels saved(last);
  require(saved.stage() == stage, "the checkpoint '{}' is of stage {}", last, saved.stage());
  return Resume{last, false};
}

void check_restart(const Session& session, const std::string& stage, const Resume& resume) {
  const SavedModels saved(resume.folder);
  const auto lengths = lengths_of(stage);
  const auto is_length = [](const std::string& name) {
    const auto has_it = [&](const char* other) { return contains(lengths_of(other), name); };
    return std::any_of(learning_stages.begin(), learning_stages.end(), has_it);
  };
  for (const Difference& difference : differences(session, saved)) {
    const bool own_length = contains(lengths, difference.name), length = own_length || is_length(difference.name);
    if (length ? own_length && !is_run(session, stage) : !is_path(session.options, difference.name)) refuse(saved, difference);
  }
  const std::string now = json::parse(session.build).value("instruction_set", "");
  require(session.options.run.allow_new_bits || saved.instruction_set() == now,
          "the checkpoint '{}' was written with the instruction set [{}], and this program has [{}]: the last bits would differ; add "
          "--allow-new-bits to go on",
          resume.folder, saved.instruction_set(), now);
  if (!resume.complete && is_run(session, stage)) check_length(session, stage, resume);
}

void check_inputs(const Session& session, const Resume& resume) {
  const SavedModels saved(resume.folder);
  const json before = json::parse(saved.progress()).value("inputs", json::object());
  const auto changed = differences(session, saved);
  const auto own = inputs_of(session.options, saved.stage());
  for (const StageInput& input : all_inputs(session.options)) {
    const auto moved = std::find_if(changed.begin(), changed.end(), [&](const Difference& one) { return one.name == input.option; });
    const bool is_own = std::any_of(own.begin(), own.end(), [&](const StageInput& one) { return one.option == input.option; });
    const std::string then = before.value(input.option, "");
    if (moved != changed.end()) {
      if (then.empty() && is_own) refuse(saved, *moved);
      if (then.empty()) continue;  // another stage's, of which nothing was known: that stage's own checkpoint decides, if it has one
      require(checksum_of(session, input) == then,
              "{} = {} is not what the checkpoint '{}' was made with ('{}'): name the same file or a copy of it, or start over with --restart "
              "replace",
              input.option, input.value, saved.reader().folder(), moved->before);
    } else if (is_own && !resume.complete && !before.empty()) {
      require(checksum_of(session, input) == then,
              "{} is not what it was when the checkpoint '{}' was made: put it back, or start over with --restart replace", input.option,
              saved.reader().folder());
    }
  }
}

StageRecord record_of(const Resume& resume) {
  const SavedModels saved(resume.folder);
  const json progress = json::parse(saved.progress());
  const json& record = !resume.complete && progress.contains("before_end") ? progress["before_end"] : progress;
  return {record["positions"].dump(), record["summary"].dump()};
}

void reopen(const Session& session, const std::string& stage) {
  const auto found = find_resume(session, stage);
  if (!found || found->complete || found->folder != session.checkpoint(stage)) return;
  const std::int64_t step = json::parse(SavedModels(found->folder).progress())["step"];
  rename_checkpoint(found->folder, fmt::format("{}-{}", found->folder, step));
}

}  // namespace collimate::rlhf
