#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "app/build_info.hpp"
#include "collimate/app/commands.hpp"
#include "collimate/comm/placement.hpp"
#include "collimate/rlhf/stages.hpp"

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
                                               "device.",
                                               "ppo.slots",
                                               "sft.log_every",
                                               "reward.log_every",
                                               "sft.checkpoint_every",
                                               "reward.checkpoint_every",
                                               "ppo.checkpoint_every",
                                               "ppo.scorer_deadline"};

std::unique_ptr<rlhf::Scorer> make_scorer(const Session& session) {
  const rlhf::ScorerOptions& o = session.options.ppo.scorer;
  if (o.kind == "lexicon") return rlhf::make_lexicon_scorer(session.path(o.lexicon), o.sign);
  if (o.kind == "regex") return rlhf::make_expression_scorer(o.pattern, o.sign, rlhf::ExpressionCount::every);
  if (o.kind == "length") return rlhf::make_length_scorer(o.length, rlhf::LengthUnit::characters);
  if (o.kind == "exact") return rlhf::make_final_number_scorer();
  return nullptr;
}

// An external scorer must be started before MPI; only then is the rank not known but by the launcher's word.
std::unique_ptr<rlhf::Scorer> start_process_scorer(const std::vector<std::string>& arguments) {
  for (const char* variable : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"})
    if (const char* rank = std::getenv(variable); rank && std::string(rank) != "0") return nullptr;
  try {
    Options options;
    std::string deck;
    OptionTable table = table_of(options, deck);
    read(table, arguments, deck);
    const auto& o = options.ppo.scorer;
    if (o.kind == "process" && !options.run.check) return rlhf::make_process_scorer(o.command, o.deadline);
  } catch (const Error&) {
    // Said once, by all ranks together, when the deck is read again below.
  }
  return nullptr;
}

void check_combinations(const Options& o, int ranks) {
  require(o.machine.tensor == 1 && o.machine.pipeline == 1,
          "grid.tensor = {} and grid.pipeline = {}: this version runs 1 and 1 with any grid.data", o.machine.tensor, o.machine.pipeline);
  require(o.machine.data == 0 || o.machine.data == ranks, "grid.data = {} needs {} ranks, and there are {}: use grid.data = 0 for all",
          o.machine.data, o.machine.data, ranks);
}

int run(World& world, const std::vector<std::string>& arguments, rlhf::Scorer* process) {
  Options options;
  std::string deck;
  OptionTable table = table_of(options, deck);
  agree_on(world.ranks(), [&] {
    read(table, arguments, deck);
    check_combinations(options, world.size());
  });
  Log log(world.rank());
  const auto places = place_threads(world);
  ProcessGrid grid(world, {1, world.size(), 1});
  const auto device = make_cpu_device();
  const BuildInfo build = build_info();
  std::unique_ptr<RunFolder> folder;
  std::unique_ptr<rlhf::Scorer> scorer;
  Session session{.world = world, .grid = grid, .device = *device, .log = log, .options = options};
  session.build = nlohmann::json{{"program", build.program},
                                 {"processor", build.processor},
                                 {"instruction_set", build.instruction_set},
                                 {"libraries", build.libraries}}
                      .dump();
  session.deck = table.resolved_deck(free_options);
  agree_on(world.ranks(), [&] {
    if (world.rank() != 0) return;
    const std::string& restart = options.run.restart;
    if (!options.run.check) {
      folder = std::make_unique<RunFolder>(options.run.folder, restart == "auto"      ? Existing::go_on
                                                               : restart == "replace" ? Existing::replace
                                                                                      : Existing::refuse);
      folder->write_deck(table.resolved_deck());
      log.open(folder->log(), restart == "auto");
    }
    if (options.ppo.scorer.kind != "model" &&
        std::find(options.run.stages.begin(), options.run.stages.end(), "ppo") != options.run.stages.end())
      scorer = make_scorer(session);
  });
  session.folder = folder.get();
  session.scorer = process ? process : scorer.get();
  log.info("{}", describe(build));
  log.info("{}", placement_report(places));
  for (const std::string& warning : placement_warnings(places)) log.warning("{}", warning);
  if (options.run.check) {
    log.info("{}", rlhf::check_stages(session));
    return static_cast<int>(ExitCode::done);
  }
  rlhf::run_stages(session);
  log.info("{}", rlhf::summary_table(session));
  return static_cast<int>(ExitCode::done);
}

}  // namespace

int run_command(const std::vector<std::string>& arguments) {
  for (const std::string& word : arguments)
    if (word == "--help" || word == "-h") {
      Options options;
      std::string deck;
      fmt::print("Usage: collimate run DECK [--section.key=value ...]\n\n{}", table_of(options, deck).help_text());
      return 0;
    }
  const auto process = start_process_scorer(arguments);
  World world;
  return run_program(world, [&] { return run(world, arguments, process.get()); });
}

}  // namespace collimate
