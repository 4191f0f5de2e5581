#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "app/build_info.hpp"
#include "app/processor.hpp"
#include "collimate/app/commands.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/base/threads.hpp"

namespace {

using namespace collimate;

struct Command {
  const char* name;
  const char* summary;
  int (*run)(const std::vector<std::string>&);
  bool on_many_ranks;
};

constexpr Command commands[] = {
    {"run", "runs the stages of a deck; under mpirun or srun on many ranks", run_command, true},
    {"prepare", "turns files into datasets; --example makes the quickstart's", prepare_command, false},
    {"import", "reads a Hugging Face model folder into a checkpoint", import_command, false},
    {"export", "writes a model of a checkpoint as a Hugging Face folder", export_command, false},
    {"generate", "continues prompts with a model of a checkpoint", generate_command, false},
    {"chat", "holds a dialogue with a model that has a chat template", chat_command, false},
    {"inspect", "shows what is in a dataset, checkpoint or run folder", inspect_command, false},
    {"diff", "finds the first difference of two runs or checkpoints: step, tensor, element", diff_command, false},
};

std::string help() {
  std::string text =
      "collimate aligns language models: supervised fine-tuning, reward models, PPO.\n\nUsage: collimate COMMAND [OPTIONS]\n\n";
  for (const Command& command : commands) text += fmt::format("  {:<10} {}\n", command.name, command.summary);
  return text +
         "\ncollimate COMMAND --help shows all options of a command, collimate --version how the program was built.\n\n"
         "Exit codes: 0 done, 1 failure (diff: different), 2 error in the input (command line, deck, file), 3 does not fit into memory,\n"
         "75 stopped early, restart to continue.\n";
}

const Command& command_named(const std::string& name) {
  std::vector<std::string> names;
  for (const Command& command : commands) {
    if (name == command.name) return command;
    names.emplace_back(command.name);
  }
  const std::string suggestion = did_you_mean(name, names);
  fail("there is no command '{}'; {}", name, suggestion.empty() ? "the commands are " + join(names, ", ") : suggestion);
}

/// Two processes of one mpirun would write the same files.
void require_one_process(const Command& command) {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    const char* size = std::getenv(variable);
    require(command.on_many_ranks || size == nullptr || std::atoi(size) <= 1,
            "collimate {} runs on one process: start it without mpirun ({} = {})", command.name, variable, size == nullptr ? "" : size);
  }
}

int dispatch(const std::vector<std::string>& words) {
  if (words.empty()) {
    std::fputs(help().c_str(), stderr);
    return static_cast<int>(ExitCode::input_error);
  }
  if (words[0] == "help" && words.size() > 1) return command_named(words[1]).run({"--help"});
  if (words[0] == "--help" || words[0] == "-h" || words[0] == "help") {
    std::fputs(help().c_str(), stdout);
    return 0;
  }
  if (words[0] == "--version") {
    fmt::print("{}\n", describe(build_info()));
    return 0;
  }
  const Command& command = command_named(words[0]);
  require_one_process(command);
  return command.run({words.begin() + 1, words.end()});
}

/// Whether something of what was printed is lost; everything printed is written out.
bool output_lost() { return std::fflush(stdout) != 0 || std::ferror(stdout) != 0; }
constexpr const char* lost = "standard output cannot be written; is its disk full, or its reader gone?";

int report(ExitCode code, const char* sentence) {
  std::fflush(stdout);
  fmt::print(stderr, "error: {}\n", sentence);
  return static_cast<int>(code);
}

}  // namespace

int main(int count, char** words) {
  require_processor();
  open_standard_streams();
  spin_briefly(words);
  try {
    const int code = dispatch({words + 1, words + count});
    return code == 0 && output_lost() ? report(ExitCode::failure, lost) : code;
  } catch (const Error& error) {
    return report(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return report(ExitCode::does_not_fit, "this does not fit into the memory of this machine");
  } catch (const std::filesystem::filesystem_error& error) {
    const Error named = path_error(error);
    return report(named.code(), named.what());
  } catch (const std::exception& error) {
    return report(ExitCode::failure, output_lost() ? lost : error.what());
  }
}
