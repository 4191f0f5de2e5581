#include <cstdio>
#include <filesystem>

#include "app/command_line.hpp"
#include "collimate/app/commands.hpp"
#include "collimate/data/prepare.hpp"
#include "collimate/io/inspect.hpp"
#include "collimate/rlhf/saved_models.hpp"

namespace collimate {

int inspect_command(const std::vector<std::string>& arguments) {
  std::string path;
  std::int64_t samples = 2;
  OptionTable table;
  table.add("path", path, "a dataset, checkpoint, run folder, Hugging Face folder, safetensors or HDF5 file");
  table.add("samples", samples, "how many samples of a dataset are shown", at_least(0));
  table.positional("path");
  if (!read_command_line(table, "collimate inspect PATH: shows what is there.", arguments)) return 0;
  require_option(table, "path");
  std::string text = inspect(path, rlhf::describe_meta);
  if (!text.ends_with('\n')) text += '\n';
  const bool dataset = std::filesystem::is_regular_file(path) && text.find("format = collimate-dataset") != std::string::npos;
  if (dataset) text += describe(Dataset(path), samples);
  print_text(text);
  return 0;
}

}  // namespace collimate
