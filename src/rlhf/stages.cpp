#include "collimate/rlhf/stages.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <ranges>
#include <set>
#include <utility>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/text.hpp"
#include "collimate/data/prepare_example.hpp"
#include "collimate/rlhf/evaluator.hpp"
#include "collimate/rlhf/ppo_trainer.hpp"
#include "collimate/rlhf/restart.hpp"
#include "collimate/rlhf/reward_trainer.hpp"
#include "collimate/rlhf/saved_models.hpp"
#include "collimate/rlhf/stage_names.hpp"
#include "collimate/rlhf/supervised_trainer.hpp"

namespace collimate::rlhf {
namespace {

using nlohmann::json;

// Whether the stage prepare finds its data in the run folder, made before a restart.
bool is_prepared(const Session& session) {
  return session.options.run.restart == "auto" && std::filesystem::exists(session.options.run.folder + "/data/heldout-prompts.h5");
}

bool contains(const std::vector<std::string>& list, const std::string& word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

// A stage starts from what an earlier one leaves; the data are made before all.
void check_order(const Options& o) {
  const auto& stages = o.run.stages;
  for (auto stage = stages.begin(); stage != stages.end(); ++stage) {
    require(*stage != "prepare" || stage == stages.begin(), "run.stages: prepare makes the data, so it must be the first stage");
    require(std::find(stages.begin(), stage, *stage) == stage, "run.stages names the stage {} twice: name it once", *stage);
    for (const StageInput& input : inputs_of(o, *stage)) {
      require(!input.needed || !input.value.empty(), "the stage {} needs {}: name a dataset that `collimate prepare` has made", *stage, input.option);
      if (input.kind != InputKind::checkpoint) continue;
      const std::string& name = input.value;
      const auto maker = std::find(stages.begin(), stages.end(), name);
      require(maker == stages.end() || maker < stage,
              "{} = {} does not exist when the stage {} starts: in run.stages, {} must come before {}", input.option, name, *stage, name,
              *stage == name ? "the stages that use it" : *stage);
    }
  }
}

// Trainers read files when they are made, and then plan memory: what fails there fails on all ranks together.
template <class Trainer>
std::unique_ptr<Trainer> make(Session& session) {
  return agree(session.ranks(), [&] { return std::make_unique<Trainer>(session); });
}

template <class Trainer>
void run(Session& session) {
  const auto trainer = make<Trainer>(session);
  agree_on(session.ranks(), [&] { trainer->plan(); });
  trainer->run();
}

// Ranks of one node share its memory, and those of one control group what it may use: each limit holds for the sum of what they plan.
void check_shared_memory(const Session& session, const std::string& stage, const std::vector<std::int64_t>& planned) {
  json mine = json::array();
  for (const MemoryLimit& limit : session.device.limits(Memory::device)) mine.push_back({limit.name, limit.bytes});
  const std::vector<std::string> limits = gather_all(session.ranks(), mine.dump());
  const std::vector<int> nodes = gather_all(session.ranks(), session.world.node());
  struct Shared {
    std::int64_t ranks = 0, planned = 0, bytes = 0;
  };
  std::map<std::pair<int, std::string>, Shared> all;
  for (std::size_t rank = 0; rank < limits.size(); ++rank)
    for (const json& limit : json::parse(limits[rank])) {
      Shared& shared = all[{nodes[rank], limit[0].get<std::string>()}];
      shared = {shared.ranks + 1, shared.planned + planned[rank], limit[1].get<std::int64_t>()};
    }
  const auto mebibytes = [](std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  for (const auto& [where, shared] : all)
    if (shared.planned > shared.bytes)
      throw AgreedError(ExitCode::does_not_fit,
                        fmt::format("{}: {} on node {} need {:.1f} MiB in all, and {} has {:.1f} MiB: start fewer ranks per node, "
                                    "shard with params.zero, or use a smaller model or batch.grain_tokens",
                                    stage, counted(shared.ranks, "rank"), where.first, mebibytes(shared.planned), where.second, mebibytes(shared.bytes)));
}

// What a stage would do, and (where stages of a pipeline differ) what each rank would need for it.
template <class Trainer>
std::string plan(Session& session, const std::string& stage, Trainer& stage_trainer) {
  Trainer* const trainer = &stage_trainer;
  agree_on(session.ranks(), [&] { trainer->plan(); });
  if constexpr (requires { trainer->first_grains(); })
    if (std::string idle = session.idle_ranks(stage, trainer->first_grains()); session.options.run.check && !idle.empty())
      session.warnings.push_back(std::move(idle));
  if constexpr (requires { trainer->warnings(); })
    for (std::string& warning : trainer->warnings()) session.warnings.push_back(std::move(warning));
  std::string text = trainer->describe();
  const auto planned = gather_all(session.ranks(), static_cast<std::int64_t>(trainer->memory().host_bytes()));
  check_shared_memory(session, stage, planned);
  const MemoryPlan& memory = trainer->memory();
  const std::size_t device = memory.planned_bytes(Memory::device);
  const auto on_device = gather_all(session.ranks(), static_cast<std::int64_t>(device));
  const auto on_host = gather_all(session.ranks(), static_cast<std::int64_t>(memory.host_bytes() - (session.device.is_host() ? device : 0)));
  const Traffic mine = trainer->traffic();
  const double traffic = std::ranges::max(gather_all(session.ranks(), mine.bytes));
  session.planned_traffic += traffic * static_cast<double>(mine.times);
  session.planned_tiers[stage] = {std::ranges::max(on_device), std::ranges::max(on_host)};
  session.planned_on_device = std::max(session.planned_on_device, std::ranges::max(on_device));
  session.planned.resize(planned.size());
  for (std::size_t rank = 0; rank < planned.size(); ++rank) session.planned[rank] = std::max(session.planned[rank], planned[rank]);
  const auto [least, most] = std::minmax_element(planned.begin(), planned.end());
  if (*least != *most) {
    text += "  planned for each rank, MiB:";
    for (const std::int64_t bytes : planned) text += fmt::format(" {:.1f}", static_cast<double>(bytes) / (1 << 20));
    text += '\n';
  }
  if (traffic > 0) text += fmt::format("  between host and device: about {} for each rank and {}\n", human_bytes(static_cast<std::int64_t>(traffic)), mine.what);
  return text;
}

// What the run needs in its largest stage: of each rank, and of the node that needs most.
std::string planned_text(const Session& session) {
  if (session.planned.empty()) return "";
  const auto [least, most] = std::ranges::minmax(session.planned);
  const std::vector<int> nodes = gather_all(session.ranks(), session.world.node());
  std::map<int, std::int64_t> sums;
  for (std::size_t rank = 0; rank < nodes.size(); ++rank) sums[nodes[rank]] += session.planned[rank];
  const std::int64_t largest = std::ranges::max(sums | std::views::values);
  return fmt::format("Memory of the largest stage: {}{} per rank, {} per node\n", least == most ? "" : human_bytes(least) + " to ", human_bytes(most),
                     human_bytes(largest));
}

// A step whose errors, of the type E, name files that lie in `prepared` by the names they will have in the run folder.
template <class E, class Step>
void with_final_names(const std::string& prepared, const std::string& folder, const Step& step) {
  try {
    step();
  } catch (const E& error) {
    if (prepared.empty()) throw;
    throw E(error.code(), replace_all(error.what(), prepared, folder), error.place());
  }
}

// What a restart finds, compared with the deck of this start.
void check_found(const Session& session) {
  agree_on(session.ranks(), [&] {
    if (!session.first()) return;
    for (const std::string stage : learning_stages)
      if (const auto found = find_resume(session, stage)) {
        check_restart(session, stage, *found);
        check_inputs(session, *found);
      }
  });
}

}  // namespace

bool starts_from_random(const Options& options) {
  std::vector<std::string> open = options.run.stages;
  for (std::size_t i = 0; i < open.size(); ++i)  // grows by what a stage starts from
    for (const StageInput& input : inputs_of(options, open[i])) {
      if (input.kind != InputKind::checkpoint) continue;
      if (input.value == "random") return true;
      if (!contains(open, input.value)) open.push_back(input.value);
    }
  return false;
}

void check_checkpoints(const Session& session) {
  agree_on(session.ranks(), [&] {
    if (!session.first()) return;
    std::set<std::string> folders;
    for (const std::string& stage : session.options.run.stages) {
      const auto resume = find_resume(session, stage);
      if (resume) folders.insert(resume->folder);
      if (resume) check_restart(session, stage, *resume);
      if (resume && resume->complete) continue;
      for (const StageInput& input : inputs_of(session.options, stage))
        if (const auto folder = input.kind == InputKind::checkpoint ? stored_checkpoint(session, input.value) : std::nullopt)
          folders.insert(*folder);
    }
    for (const std::string& folder : folders) SavedModels(folder).verify();
  });
}

void take_up(Session& session) {
  agree_on(session.ranks(), [&] {
    RunPositions positions;
    json summary = json::object();
    for (const std::string stage : learning_stages) {
      const auto found = find_resume(session, stage);
      if (!found) continue;
      const StageRecord record = record_of(*found);
      const RunPositions there = RunPositions::from_json(record.positions);
      if (there.metrics < positions.metrics) continue;
      positions = there;
      summary = json::parse(record.summary);
      const json progress = json::parse(SavedModels(found->folder).progress());
      session.seconds = progress.value("seconds", std::map<std::string, double>());
      session.peaks = progress.value("peaks", std::map<std::string, std::int64_t>());
    }
    for (const auto& [key, value] : summary.items()) {
      if (value.is_string())
        session.summary.set(key, value.get<std::string>());
      else if (value.is_number_float())
        session.summary.set(key, value.get<double>());
      else
        session.summary.set(key, value.get<std::int64_t>());
    }
    if (session.folder) session.folder->restart_at(positions);
  });
  agree_on(session.ranks(), [&] {
    if (!session.first()) return;
    for (const std::string stage : learning_stages) reopen(session, stage);
  });
}

void run_stages(Session& session) {
  bool said = false;
  for (const std::string& stage : session.options.run.stages) {
    const auto found =
        stage == "prepare" || stage == "evaluate" ? std::nullopt : agree(session.ranks(), [&] { return find_resume(session, stage); });
    if (found && found->complete) {
      session.log.info("{:<6} finished earlier, skipped: {}", stage, found->folder);
      continue;
    }
    agree_on(session.ranks(), [&] {
      if (session.first()) session.inputs = input_checksums(session, stage);
    });
    session.stage_clock.restart();
    const bool alone = std::ranges::min(gather_all(session.ranks(), int{session.peak_memory.restart()})) == 1;
    if (!alone && !std::exchange(said, true))
      session.log.info("this system cannot reset the peak-memory counter: a stage's peak_memory_bytes counts from the start of the program");
    if (stage == "sft") run<SupervisedTrainer>(session);
    if (stage == "reward") run<RewardTrainer>(session);
    if (stage == "ppo") run<PpoTrainer>(session);
    if (stage == "evaluate") run<Evaluator>(session);
    session.seconds[stage] += session.stage_clock.seconds();
    const std::vector<std::int64_t> peak = gather_all(session.ranks(), session.peak_memory.bytes());
    session.peaks[stage] = std::max(session.peaks[stage], std::ranges::max(peak));
    session.timings(JsonLine()
                        .add("stage", stage)
                        .add("stage_seconds", session.stage_clock.seconds())
                        .add("peak_memory_bytes", std::span<const std::int64_t>(peak)));
    if (session.stop_due() && stage != session.options.run.stages.back()) session.stop();
  }
  std::int64_t peak = std::ranges::max(gather_all(session.ranks(), session.peak_memory.whole_bytes()));
  if (!session.folder) return;
  Summary written = session.summary;  // with what is not the same in every run
  for (const auto& [stage, seconds] : session.seconds) written.set(stage + ".seconds", seconds);
  for (const auto& [stage, bytes] : session.peaks) {
    written.set(stage + ".peak_memory_bytes", bytes);
    peak = std::max(peak, bytes);
  }
  written.set("peak_memory_bytes", peak);  // of the rank that needs most
  for (const std::string stage : {"ppo", "reward", "sft", "evaluate"})
    if (session.summary.has(stage + ".state_hash")) {
      written.set("state_hash", json::parse(session.summary.text())[stage + ".state_hash"].get<std::string>());
      break;
    }
  const json build = json::parse(session.build);
  for (const auto& [key, value] : build.items()) written.set("build." + key, value.get<std::string>());
  session.folder->write_summary(written);
}

Preparation::Preparation(Session& session) : session_(session) {
  const Stopwatch clock;
  const Options& o = session.options;
  session.peak_memory.restart();
  agree_on(session.ranks(), [&] { check_order(o); });
  if (!contains(o.run.stages, "prepare")) return;
  std::string name;
  agree_on(session.ranks(), [&] {
    if (!session.first()) return;
    for (const std::string& folder : PartialFolder::remove_left(o.run.folder))
      session.warnings.push_back(fmt::format("'{}' was left by a start on another machine, or before this one was rebooted: remove it if that start is over",
                                             folder));
    if (is_prepared(session)) return;
    const std::string data = o.run.folder + "/data";
    require(
        !std::filesystem::is_symlink(data),
        "'{}' is a symbolic link, and the stage prepare does not write through it: remove the link, or take prepare out of run.stages",
        data);
    place_.emplace(o.run.folder);
    name = place_->path();
    with_final_names<Error>(name, o.run.folder, [&] {
      const std::string report = prepare_example(name + "/data", o.prepare.vocabulary, static_cast<std::uint64_t>(o.prepare.seed));
      report_ = replace_all(report, name, o.run.folder);
    });
  });
  broadcast(session.ranks(), name);
  if (!name.empty()) session.peaks["prepare"] = std::ranges::max(gather_all(session.ranks(), session.peak_memory.bytes()));
  session.prepared_in = name;
  seconds_ = clock.seconds();
}

Preparation::~Preparation() { session_.prepared_in.clear(); }

void Preparation::finish() {
  agree_on(session_.ranks(), [&] {
    if (!place_) return;
    move_files(place_->path() + "/data", session_.options.run.folder + "/data");
    session_.log.info("{}", report_);
    place_.reset();
  });
  if (!session_.prepared_in.empty()) session_.seconds["prepare"] += seconds_;
  session_.prepared_in.clear();
}

StagePlans::StagePlans(Session& session) : session_(session), warnings_(session.warnings) {
  const auto add = [&]<class Trainer>(std::type_identity<Trainer>, const std::string& stage) {
    const auto trainer = std::shared_ptr<Trainer>(make<Trainer>(session));
    if constexpr (requires { trainer->step_grains(); }) most_grains_ = std::max(most_grains_, session.of_a_replica(trainer->step_grains()));
    plans_.push_back([&session, stage, trainer] { return rlhf::plan(session, stage, *trainer); });
  };
  with_final_names<AgreedError>(session.prepared_in, session.options.run.folder, [&] {
    check_found(session);
    for (const std::string& stage : session.options.run.stages) {
      const bool trains = stage == "sft" || stage == "reward" || stage == "ppo";
      if (const auto found = trains ? agree(session.ranks(), [&] { return find_resume(session, stage); }) : std::nullopt;
          found && found->complete) {
        plans_.push_back([stage] { return fmt::format("{}: finished earlier\n", stage); });  // and needs its data no more
        continue;
      }
      if (stage == "sft") add(std::type_identity<SupervisedTrainer>(), stage);
      if (stage == "reward") add(std::type_identity<RewardTrainer>(), stage);
      if (stage == "ppo") add(std::type_identity<PpoTrainer>(), stage);
      if (stage == "evaluate") add(std::type_identity<Evaluator>(), stage);
    }
  });
}

std::string StagePlans::plan() {
  session_.planned.clear();
  session_.planned_tiers.clear();
  session_.planned_on_device = 0;
  session_.planned_traffic = 0;
  session_.warnings = warnings_;
  std::string out;
  with_final_names<AgreedError>(session_.prepared_in, session_.options.run.folder, [&] {
    for (const auto& plan : plans_) out += plan();
  });
  return out + planned_text(session_);
}

}  // namespace collimate::rlhf
