#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <utility>

#include "app/build_info.hpp"
#include "app/command_line.hpp"
#include "collimate/app/commands.hpp"
#include "collimate/base/text.hpp"
#include "collimate/comm/launcher.hpp"
#include "collimate/comm/rank_cores.hpp"
#include "collimate/rlhf/stage_names.hpp"
#include "collimate/rlhf/stages.hpp"
#include "collimate/rlhf/strategies.hpp"

namespace collimate {
namespace {

using rlhf::Options;
using rlhf::Session;

OptionTable table_of(Options& options, std::string& deck) {
  OptionTable table;
  table.add("deck", deck, "the deck (input file) of the run");
  table.positional("deck");
  options.declare(table);
  return table;
}

void read(OptionTable& table, const std::vector<std::string>& arguments, const std::string& deck) {
  table.read_arguments(arguments);
  require(!deck.empty(), "collimate run needs a deck: collimate run DECK [--section.key=value ...]");
  table.read_deck_file(deck);
}

// Sections that change no number are left out of what a restart compares.
const std::vector<std::string> free_options = {"run.folder",
                                               "run.stop_after",
                                               "run.stages",
                                               "grid.",
                                               "params.",
                                               "engine.",
                                               "memory.",
                                               "placement.",
                                               "lora.base",
                                               "ppo.slots",
                                               "sft.log_every",
                                               "reward.log_every",
                                               "sft.checkpoint_every",
                                               "reward.checkpoint_every",
                                               "ppo.checkpoint_every",
                                               "ppo.scorer_deadline",
                                               "run.keep_",
                                               "evaluate.model",
                                               "evaluate.reference"};

std::unique_ptr<rlhf::Scorer> make_scorer(const Session& session) {
  const rlhf::ScorerOptions& o = session.options.ppo.scorer;
  require(o.kind != "regex" || !o.pattern.empty(), "ppo.scorer = regex needs ppo.scorer_pattern, the expression to count matches of");
  require(o.kind != "lexicon" || !o.lexicon.empty(), "ppo.scorer = lexicon needs ppo.scorer_lexicon, a file of lines word<TAB>value");
  if (o.kind == "lexicon") return rlhf::make_lexicon_scorer(session.path(o.lexicon), 1, {o.word_column, o.value_column});
  try {
    if (o.kind == "regex") return rlhf::make_expression_scorer(o.pattern, 1, rlhf::ExpressionCount::every);
  } catch (const Error& error) {
    fail("ppo.scorer_pattern: {}", error.what());
  }
  if (o.kind == "length") return rlhf::make_length_scorer(o.length, rlhf::LengthUnit::characters);
  if (o.kind == "exact") return rlhf::make_final_number_scorer(o.exact_answer == "marked" ? rlhf::AnswerForm::marked : rlhf::AnswerForm::last_number);
  return nullptr;
}

// An external scorer must be started before MPI; only then is the rank not known but by the launcher's word.
struct ProcessScorer {
  std::unique_ptr<rlhf::Scorer> scorer;  // rank 0
  std::string error;                     // why there is none
};

bool runs_stage(const Options& o, const char* stage) {
  return std::find(o.run.stages.begin(), o.run.stages.end(), stage) != o.run.stages.end();
}

bool scores_responses(const Options& o) { return runs_stage(o, "ppo") || runs_stage(o, "evaluate"); }

bool needs_scorer(const Options& o) { return o.ppo.scorer.kind != "model" && scores_responses(o); }

ProcessScorer start_process_scorer(const std::vector<std::string>& arguments) {
  for (const char* variable : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"})
    if (const char* rank = std::getenv(variable); rank && std::string(rank) != "0") return {};
  Options options;
  try {
    std::string deck;
    OptionTable table = table_of(options, deck);
    read(table, arguments, deck);
  } catch (const Error&) {
    return {};  // said once, by all ranks together, when the deck is read again below
  }
  const auto& o = options.ppo.scorer;
  if (o.kind != "process" || !needs_scorer(options)) return {};
  try {
    if (options.run.check) return rlhf::check_scorer_command(o.command), ProcessScorer{};
    return {rlhf::make_process_scorer(o.command, o.deadline), ""};
  } catch (const Error& error) {
    return {nullptr, error.what()};
  }
}

GridShape shape_of(const rlhf::MachineOptions& o) {
  return {static_cast<int>(o.tensor), static_cast<int>(o.data), static_cast<int>(o.pipeline)};
}

void check_combinations(const Options& o, int ranks) {
  complete(shape_of(o.machine), ranks, static_cast<int>(o.machine.tensor_shards), rlhf::starts_from_random(o) ? o.model.layers : 0);
  axis_order(o.machine.order);
  const HostShares host = o.machine.host_shares();
  require(host.values <= host.state || o.lora.on(),
          "placement.values = {0} needs at least as much of the optimizer's state there: set placement.moments = {0} and placement.gradients = {0}",
          o.machine.values);
  require(!o.run.stages.empty(), "run.stages is empty: name at least one of prepare, sft, reward, ppo, evaluate");
  require(o.ppo.policy.dual_clip == 0 || o.ppo.policy.dual_clip > 1, "ppo.dual_clip = {} must be 0 (off) or more than 1",
          o.ppo.policy.dual_clip);
  require(o.ppo.minibatch <= o.ppo.batch, "ppo.minibatch = {} is more than ppo.batch = {}", o.ppo.minibatch, o.ppo.batch);
  require(!o.lora.on() || !o.lora.targets.empty(), "lora.targets is empty: name at least one of the matrices that get an adapter");
  require(!o.lora.on() || !o.lora.stages.empty(), "lora.rank = {} and lora.stages is empty: name the stages in which adapters learn, or leave lora.rank out",
          o.lora.rank);
  require(o.ppo.kl.target == 0 || o.ppo.kl.beta > 0, "ppo.kl_target = {} needs a coefficient ppo.kl above 0, which it multiplies",
          o.ppo.kl.target);
}

// What is no error and has no effect. A resolved deck gives all options; those that have their defaults are not spoken of.
std::string join_changed(const OptionTable& table, const std::function<bool(const std::string&)>& wanted) {
  std::vector<std::string> changed;
  for (const std::string& name : table.names())
    if (table.changed(name) && wanted(name)) changed.push_back(name);
  return join(changed, ", ");
}

// The options of the model that starts from random numbers, where there is none: a checkpoint brings its own.
std::string model_without_use(const OptionTable& table, const Options& options) {
  if (rlhf::starts_from_random(options)) return "";
  const std::string idle = join_changed(table, [](const std::string& name) { return name.starts_with("model."); });
  if (idle.empty()) return "";
  return fmt::format("every model comes from a checkpoint, so these options have no effect: {}", idle);
}

// What is said of adapters where there are none.
std::string adapters_without_use(const OptionTable& table, const Options& options) {
  if (options.lora.on()) return "";
  const std::string idle = join_changed(
      table, [](const std::string& name) { return name.starts_with("lora.") && name != "lora.rank" && name != "lora.base"; });
  return idle.empty() ? "" : fmt::format("lora.rank is 0 (no adapters), so these options have no effect: {}", idle);
}

// The options of other scorers than the chosen one.
std::string scorers_without_use(const OptionTable& table, const Options& options) {
  static const std::map<std::string, std::vector<std::string>> owners = {{"ppo.reward", {"model"}},
                                                                         {"ppo.scorer_lexicon", {"lexicon"}},
                                                                         {"ppo.scorer_word_column", {"lexicon"}},
                                                                         {"ppo.scorer_value_column", {"lexicon"}},
                                                                         {"ppo.exact_answer", {"exact"}},
                                                                         {"ppo.scorer_pattern", {"regex"}},
                                                                         {"ppo.scorer_length", {"length"}},
                                                                         {"ppo.scorer_command", {"process"}},
                                                                         {"ppo.scorer_deadline", {"process"}},
                                                                         {"ppo.scorer_sign", {"lexicon", "regex", "length", "exact", "process"}}};
  const std::string& kind = options.ppo.scorer.kind;
  if (!scores_responses(options)) return "";
  const std::string idle = join_changed(table, [&](const std::string& name) {
    const auto found = owners.find(name);
    return found != owners.end() && std::find(found->second.begin(), found->second.end(), kind) == found->second.end();
  });
  return idle.empty() ? "" : fmt::format("with ppo.scorer = {} these options have no effect: {}; remove them, or choose another scorer", kind, idle);
}

// Plans the stages; where placements are to be chosen, the ones that move least between host and device. Of each size of groups the least goes to the
// host that fits: first the optimizer's state, since it is used once a step, then parameters, by 64ths.
std::string place(rlhf::StagePlans& plans, Session& session, rlhf::MachineOptions& machine, bool group_given, std::string& placed) {
  if (machine.layout != "auto") return plans.plan();
  constexpr int parts = 64, all = 2 * parts;
  const bool apart = machine.device_memory > 0 || !session.device.is_host();  // else the host has no more room than the device
  std::optional<AgreedError> refusal;
  const auto plan = [&](std::int64_t group, int on_host) {
    const auto where = [](int share) { return share == 0 ? "device" : share == parts ? "host" : fmt::format("host:{}", static_cast<double>(share) / parts); };
    machine.group = group;
    machine.moments = machine.gradients = where(std::min(on_host, parts));
    machine.values = where(std::max(on_host - parts, 0));
    return plans.plan();
  };
  const auto fits = [&](std::int64_t group, int on_host) {
    try {
      plan(group, on_host);
      return true;
    } catch (const AgreedError& error) {
      if (error.code() != ExitCode::does_not_fit) throw;
      refusal.emplace(error);
      return false;
    }
  };
  const auto least_on_host = [&](std::int64_t group) -> std::optional<int> {
    if (fits(group, 0)) return 0;
    if (!apart || !fits(group, all)) return std::nullopt;
    int least = 0, most = all;
    while (most - least > 1) (fits(group, (least + most) / 2) ? most : least) = (least + most) / 2;
    fits(group, most);
    return most;
  };
  struct Choice {
    std::int64_t group;
    int on_host;
    double traffic;
  };
  std::optional<Choice> best;
  const auto look = [&] {
    for (std::int64_t group = group_given ? machine.group : 1;; group *= 2) {
      const std::optional<int> on_host = least_on_host(group);
      if (!on_host) break;
      if (!best || session.planned_traffic < best->traffic) best = {group, *on_host, session.planned_traffic};
      if (best->traffic == 0 || group_given || group >= plans.most_grains()) break;
    }
  };
  look();
  if (!best && session.division().placement().values && machine.rollouts == "held") {
    machine.rollouts = "streamed";
    look();
  }
  if (!best) throw AgreedError(*refusal);
  const std::string found = plan(best->group, best->on_host);
  placed = fmt::format("placement.layout = auto: placement.values = {}, placement.moments and .gradients = {}, engine.group = {}{}", machine.values,
                       machine.moments, machine.group, machine.rollouts == "held" ? "" : ", placement.rollouts = streamed");
  return found;
}

// The device memory as placed, and what is left of it with everything on the host and no groups.
std::string floor_text(rlhf::StagePlans& plans, Session& session, rlhf::MachineOptions& machine) {
  const rlhf::MachineOptions asked = machine;
  const std::int64_t needed = session.planned_on_device;
  machine.group = 1;
  machine.rollouts = "streamed";
  machine.values = machine.moments = machine.gradients = "host";
  machine.device_memory = machine.host_memory = 0;
  std::string text;
  try {
    plans.plan();
    text = fmt::format("Device memory per rank: {} as placed, {} with everything on the host (placement.*)\n",
                       human_bytes(needed), human_bytes(session.planned_on_device));
  } catch (const AgreedError& error) {
    if (error.code() != ExitCode::does_not_fit) throw;
  }
  machine = asked;
  return text;
}

int run(World& world, const std::vector<std::string>& arguments, const ProcessScorer& process, const std::string& alone) {
  Options options;
  std::string deck;
  OptionTable table = table_of(options, deck);
  Log log(world.rank());
  agree_on(world.ranks(), [&] {
    read(table, arguments, deck);
    if (!options.machine.strategy.empty())
      for (const std::string& argument : arguments)
        require(!argument.starts_with("--params.zero") && (!argument.starts_with("--placement.") || argument.starts_with("--placement.steps") || argument.starts_with("--placement.rollouts")),
                "--strategy = {} chooses what {} does: give one of them", options.machine.strategy, argument);
    rlhf::apply_strategy(options.machine);
    require(alone.empty() || options.run.check, "{}", alone);
    check_combinations(options, world.size());
  });
  const auto cores = share_cores(world);
  ProcessGrid grid(world, shape_of(options.machine), axis_order(options.machine.order));
  const auto device = make_device();
  const BuildInfo build = build_info();
  std::unique_ptr<RunFolder> folder;
  std::unique_ptr<rlhf::Scorer> scorer;
  Session session{.world = world, .grid = grid, .device = *device, .log = log, .options = options};
  session.build = to_json(build);
  session.deck = table.resolved_deck(free_options);
  const std::string& restart = options.run.restart;
  agree_on(world.ranks(), [&] {
    require(process.error.empty(), "ppo.scorer_command: {}", process.error);
    if (world.rank() == 0 && needs_scorer(options)) scorer = make_scorer(session);
  });
  session.scorer = process.scorer ? process.scorer.get() : scorer.get();
  // Everything that can be wrong is looked at before the run folder is touched. A run that holds this folder now may change what is looked
  // at, so its lock comes first.
  const Existing existing = restart == "auto" ? Existing::go_on : restart == "replace" ? Existing::replace : Existing::refuse;
  session.replacing = existing == Existing::replace;
  std::optional<RunLock> lock;
  agree_on(world.ranks(), [&] {
    if (world.rank() != 0) return;
    if (!options.run.check && RunLock::known_in(options.run.folder)) lock.emplace(options.run.folder);
    const bool full_is_fine = options.run.check && existing == Existing::refuse;  // as is one that a run is just filling
    RunFolder::check(options.run.folder, full_is_fine ? Existing::go_on : existing, rlhf::learning_stages);
  });
  rlhf::check_checkpoints(session);
  rlhf::Preparation preparation(session);
  std::string placed;
  rlhf::StagePlans plans(session);
  const std::string found = place(plans, session, options.machine, table.given("engine.group"), placed);
  std::vector<std::string> warnings = cores_warnings(cores);
  if (!alone.empty()) warnings.push_back(alone);
  for (const std::string& idle :
       {model_without_use(table, options), adapters_without_use(table, options), scorers_without_use(table, options)})
    if (!idle.empty()) warnings.push_back(idle);
  if (scorer && !scorer->remark().empty()) warnings.push_back(scorer->remark());
  warnings.insert(warnings.end(), session.warnings.begin(), session.warnings.end());
  if (options.run.check) {
    log.info("{}\n{}\n{}{}{}{}", headline(build), cores_report(cores), placed, placed.empty() ? "" : "\n", found,
             session.planned.empty() ? "" : floor_text(plans, session, options.machine));
    for (const std::string& warning : warnings) log.warning("{}", warning);
    agree_on(world.ranks(), [&] {
      if (world.rank() == 0) RunFolder::check(options.run.folder, existing, rlhf::learning_stages);
    });
    log.info("OK: deck, files, run folder and memory. Nothing was run.");
    return static_cast<int>(ExitCode::done);
  }
  session.replacing = false;
  agree_on(world.ranks(), [&] {
    if (world.rank() != 0) return;
    if (session.scorer) session.scorer->check();
    folder = std::make_unique<RunFolder>(options.run.folder, existing, rlhf::learning_stages, std::move(lock));
  });
  session.folder = folder.get();
  if (restart == "auto") rlhf::take_up(session);
  agree_on(world.ranks(), [&] {
    if (!folder) return;
    folder->write_deck(table.resolved_deck());
    log.open(folder->log(), restart == "auto");
  });
  log.info("{}\nstarted at {}", headline(build), local_time());
  log.info("{}{}{}", cores_report(cores), placed.empty() ? "" : "\n", placed);
  for (const std::string& warning : warnings) log.warning("{}", warning);
  if (folder && !folder->locked())
    log.warning("the file system of '{}' does not support locks: nothing keeps a second run out of this folder", options.run.folder);
  if (folder) {
    std::vector<std::string> left = folder->left();
    if (runs_stage(options, "prepare")) std::erase(left, "data");  // which it makes anew
    if (!left.empty()) log.info("files in '{}' that are not of the run are left alone: {}", options.run.folder, join(left, ", "));
  }
  preparation.finish();
  rlhf::run_stages(session);
  if (session.scorer)
    if (const std::string odd = session.scorer->finish(); !odd.empty()) log.warning("{}", odd);
  log.info("{}", rlhf::closing_report(session));
  return static_cast<int>(ExitCode::done);
}

constexpr const char* usage =
    "collimate run DECK [--section.key=value ...]: runs the stages of a deck, under mpirun or srun on many ranks. For example\n"
    "  mpirun -np 2 collimate run inputs/quickstart/quickstart.ini --run.folder=/tmp/mine --ppo.iterations=5\n"
    "--help SECTION shows the options of one section: --help ppo";

}  // namespace

int run_command(const std::vector<std::string>& arguments) {
  {
    Options options;
    std::string deck;
    if (show_help(table_of(options, deck), usage, arguments)) return 0;
  }
  const auto process = start_process_scorer(arguments);
  const std::string lonely = missing_ranks([](const char* name) { return std::getenv(name); });
  World world;
  return run_program(world, [&] { return run(world, arguments, process, world.size() > 1 ? "" : lonely); });
}

}  // namespace collimate
