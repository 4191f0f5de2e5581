#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "collimate/base/log.hpp"
#include "collimate/base/peak_memory.hpp"
#include "collimate/base/timer.hpp"
#include "collimate/comm/process_grid.hpp"
#include "collimate/data/dataset.hpp"
#include "collimate/io/run_folder.hpp"
#include "collimate/rlhf/batch.hpp"
#include "collimate/rlhf/model_card.hpp"
#include "collimate/rlhf/options.hpp"
#include "collimate/rlhf/scorer.hpp"
#include "collimate/rlhf/text_rules.hpp"

namespace collimate::rlhf {

/// Bytes that go between host and device, about, so many times: "optimizer step", "iteration".
struct Traffic {
  double bytes = 0;
  std::int64_t times = 1;
  std::string what;
};

/// The memory of a stage: the plan, and what its engines share.
struct StageMemory {
  explicit StageMemory(Device& device) : plan(device), workspace(plan) {}
  MemoryPlan plan;
  Workspace workspace;
};

/// What every stage of a run works with. Rank 0 owns the run folder; the numbers in it are equal for every number of ranks.
struct Session {
  World& world;
  ProcessGrid& grid;
  Device& device;
  Log& log;
  const Options& options;
  RunFolder* folder = nullptr;                 ///< rank 0 only
  Scorer* scorer = nullptr;                    ///< rank 0 only, where ppo.scorer is not model
  std::string build = "{}";                    ///< JSON, for checkpoints
  std::string prepared_in = {};                ///< where {run}/data lies; empty: in run.folder
  bool replacing = false;                      ///< true until the old run in run.folder has been deleted (--restart replace)
  std::string deck = {};                       ///< resolved, without what changes no number
  std::string inputs = "{}";                   ///< JSON: checksums of the files that the running stage reads, by option
  std::string before_end = {};                 ///< JSON: positions and summary before an evaluation that only the end of the stage brings; or nothing
  std::vector<std::string> warnings = {};      ///< found before the run, to be said once its log is open
  Summary summary = {};                        ///< equal on every rank
  std::map<std::string, double> seconds = {};  ///< by stage ("sft") and phase ("sft.update"), over all starts; the running stage: earlier starts only
  Stopwatch clock = {};                        ///< of this start
  Stopwatch stage_clock = {};                  ///< of the running stage in this start
  std::map<std::string, std::int64_t> peaks = {};  ///< peak bytes by stage, the largest rank's, over all starts; the running stage: earlier starts only
  std::vector<std::int64_t> planned = {};      ///< bytes that each rank needs in its largest stage; filled by StagePlans
  struct Tiers {
    std::int64_t device = 0, host = 0;  ///< bytes
  };
  std::map<std::string, Tiers> planned_tiers = {};  ///< of each stage, each of the rank that needs most; filled by StagePlans
  std::int64_t planned_on_device = 0;  ///< bytes, of the rank and stage that need most there; filled by StagePlans
  double planned_traffic = 0;          ///< bytes between host and device in all stages, about, of the rank with most; filled by StagePlans
  PeakMemory peak_memory = {};                 ///< of this rank in the running stage

  Communicator& data() const { return grid.along(Axis::data); }
  Communicator& ranks() const { return grid.world(); }
  /// How every model of the run is divided over the ranks.
  Division division() const {
    const MachineOptions& machine = options.machine;
    return {&grid, static_cast<int>(machine.tensor_shards), static_cast<int>(machine.zero), machine.mode == "exact", machine.host_shares(), machine.steps == "pending"};
  }
  RecomputePlan recompute() const;
  DType values() const { return options.machine.value_type == "bf16" ? DType::bf16 : DType::f32; }  ///< of models' own parameters
  std::int64_t of_a_replica(std::int64_t grains) const { return (grains + data().size() - 1) / data().size(); }  ///< the most, of so many over all
  std::int64_t group(std::int64_t grains) const;  ///< grains computed together, where a step has `grains` over all replicas
  bool first() const { return world.rank() == 0; }
  std::string path(const std::string& text) const;  ///< with {run} replaced by run.folder
  std::string checkpoint(const std::string& stage) const { return options.run.folder + "/checkpoints/" + stage; }
  void metrics(const JsonLine& line) const;  ///< numbers that are the same on every layout
  void timings(const JsonLine& line) const;  ///< numbers that are not
  void sample(const JsonLine& line) const;
  bool hash_due(std::int64_t step) const { return options.run.hash_every > 0 && step % options.run.hash_every == 0; }
  bool hashes_values() const { return options.run.hash == "all"; }  ///< where a hash is due
  std::int64_t most_rows() const;  ///< rows of a grain, padding included
  /// The global batch of these sequences, in grains of the deck's size; see Batch.
  Batch batch(std::vector<Sequence> sequences, std::span<const std::int64_t> groups = {}) const {
    return {std::move(sequences), options.machine.grain_tokens, division(), groups};
  }

  std::int64_t steps_done = 0;  ///< optimizer steps and PPO iterations since this start
  bool stop_due() const { return options.run.stop_after > 0 && steps_done >= options.run.stop_after; }
  [[noreturn]] void stop() const;  ///< ends the run with exit code 75; call it after a checkpoint
  void check_fits(const MemoryPlan& plan) const;  ///< throws does_not_fit, naming the options that lower the need
  /// Warns, at a stage's first step, of ranks that have no grain to compute.
  std::string idle_ranks(const std::string& stage, std::int64_t grains) const;  ///< a warning, or ""
  void warn_of_idle_ranks(const std::string& stage, std::int64_t grains) const;
};

/// Adds the time of its scope to Session::seconds as a phase of a stage. Phases do not nest.
class PhaseTime {
 public:
  PhaseTime(Session& session, const std::string& stage, const std::string& phase) : sum_(session.seconds[stage + "." + phase]) {}
  PhaseTime(const PhaseTime&) = delete;
  PhaseTime& operator=(const PhaseTime&) = delete;
  ~PhaseTime() { sum_ += clock_.seconds(); }

 private:
  double& sum_;
  Stopwatch clock_;
};

/// The dataset that an option of the deck names; errors begin with the option.
Dataset open_dataset(const Session& session, const std::string& option, const std::string& value, DatasetKind kind);

/// Where a model comes from.
struct Source {
  std::string name;  ///< what the deck calls it
  ModelCard card;
  TextRules text;
  std::string checkpoint;   ///< folder; empty: random numbers, or a stage of this run that has not run yet
  std::string model;        ///< its name in the checkpoint
};

/// What a stage takes as a start: a model with exactly the head that it asks for, or one with another head too (the body is taken), and
/// perhaps random numbers.
enum class Accept { exact, exact_or_random, any_or_random };

/// Whether two sources are one and the same model, whatever the deck calls it.
bool same_model(const Source& a, const Source& b);
/// The folder of the checkpoint that a stage's name or a path stands for; nothing for "random" and for what is not there yet.
std::optional<std::string> stored_checkpoint(const Session& session, const std::string& name);
/// Resolves "random", a stage's name or a checkpoint's folder; `option` is named in errors. A stage that has not run yet is described by
/// where it will start from, and the template of its own dataset. data: a dataset that names the vocabulary of a model that starts from
/// random numbers.
Source find_source(const Session& session, const std::string& option, const std::string& name, Head head, Accept accept,
                   const Dataset& data);
/// Stops unless tokenizer and template of the dataset are those of the source; one whose template is not settled takes the dataset's.
void match_text(Source& source, const Dataset& data, const std::string& whose);
/// Stops where a sample of the dataset does not fit into the model's context or into a grain.
void check_lengths(const Session& session, const Dataset& data, const ModelConfig& config);
/// Fills an engine from a source, or with random numbers. Parameters of another engine are left
/// alone. Adapters start anew, and what a source has is merged into its parameters; or they are the source's, where its card has them.
void load_source(const Session& session, const Source& source, Engine& engine);
/// What a stage's checkpoint says of an engine's adapters, once the engine is filled; nothing without adapters. Collective.
AdapterNote note_of(const Session& session, const std::string& stage, const Source& source, Engine& engine);

/// How a model lies on the grid, where it is divided: the blocks of each pipeline stage, their schedule for a step of `grains` grains, and
/// what ZeRO's sharded gradients cost with several grains; "" on an undivided one.
std::string describe_division(const Session& session, const Engine& engine, std::int64_t grains);

/// A step of a stage, and in PPO one of its optimizer steps.
struct StepName {
  std::string stage;
  std::int64_t step = 0;    ///< or iteration; 0: before the first
  std::int64_t update = 0;  ///< which of the model's optimizer steps in an iteration, from 1; 0: a step has one
  std::string text() const;  ///< "ppo iteration 3, update 2"
};

/// The state hash of a store's values as text; `when` is said where replicas disagree. Collective.
std::string hash_text(const ParameterStore& store, const std::string& when);
/// Writes a line of hashes.jsonl, with a hash of each tensor, and returns the state hash. Collective.
std::string write_hashes(const Session& session, const StepName& name, const ParameterStore& store, Kind kind);

/// Reports the steps of a stage: how far, how fast, how long it will take, and where the time goes.
class Progress {
 public:
  Progress(Session& session, std::string stage, std::int64_t first, std::int64_t last, std::int64_t every)
      : session_(&session), stage_(std::move(stage)), first_(first), last_(last), every_(every) {}
  void begin(std::int64_t step);
  /// A phase of the step ends, in which all ranks together computed so many tokens; the next one begins. Collective: it waits for the
  /// slowest rank, and a rank's idle fraction is the share of the phase in which it waited for others.
  void phase(const std::string& name, std::int64_t tokens);
  /// The step ends: one line in timings.jsonl with all phases, and one in the log. details: "loss 1.234"; tokens: of the whole step.
  void end(std::int64_t tokens, const std::string& details);

 private:
  Session* session_;
  std::string stage_;
  std::int64_t first_, last_, every_, now_ = 0;
  std::int64_t tokens_ = 0;    // since the last line of the log
  double seconds_ = 0;         // the same
  double waited_ = 0;          // before this phase
  double gathers_waited_ = 0;  // before this step
  JsonLine line_;
  Stopwatch total_, step_, phase_;
};

/// Upper bound of the grains of one optimizer step of `samples` samples with `tokens` tokens in all (next-fit packing).
std::int64_t grain_bound(std::int64_t samples, std::int64_t tokens, std::int64_t grain_tokens);

}  // namespace collimate::rlhf
