#include <cstdio>
#include <filesystem>

#include "app/command_line.hpp"
#include "app/diff.hpp"
#include "collimate/app/commands.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/file_kind.hpp"

namespace collimate {
namespace {

enum class Form { run, checkpoint };

Form form_of(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (fs::exists(fs::path(path) / "manifest.json", error)) return Form::checkpoint;
  if (fs::exists(fs::path(path) / "metrics.jsonl", error)) return Form::run;
  require(fs::exists(path, error), "'{}' does not exist", path);
  if (fs::is_regular_file(path, error)) require_file_kind(path, {FileKind::text, FileKind::json}, "a run folder or a checkpoint");
  fail("'{}' is neither a run folder (it has no metrics.jsonl) nor a checkpoint (it has no manifest.json)", path);
}

}  // namespace

int diff_command(const std::vector<std::string>& arguments) {
  std::string a, b;
  OptionTable table;
  table.add("a", a, "a run folder or a checkpoint");
  table.add("b", b, "another one of the same kind");
  table.positional("a");
  table.positional("b");
  const char* usage =
      "collimate diff A B: the first difference of two runs: stage, step, what was computed first among what differs there, tensor, and "
      "the\n"
      "element, from the nearest checkpoints that both have; or the first difference of two checkpoints.\n"
      "Tensors are hashed every run.hash_every steps. Exit codes: 0 equal, 1 different, 2 error in the input.";
  if (!read_command_line(table, usage, arguments)) return 0;
  require(!a.empty() && !b.empty(), "command line: collimate diff needs two run folders or two checkpoints");
  const Form form = form_of(a);
  require(form == form_of(b), "'{}' and '{}' are a run and a checkpoint: give two runs or two checkpoints", a, b);
  const Verdict verdict = form == Form::run ? diff_runs(a, b) : diff_checkpoints(a, b);
  const std::string text = fmt::format("A  {}\nB  {}\n{}\n", a, b, verdict.text);
  print_text(text);
  return verdict.equal ? 0 : 1;
}

}  // namespace collimate
