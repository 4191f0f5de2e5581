#include "collimate/io/inspect.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/hdf5_file.hpp"
#include "collimate/base/file_kind.hpp"
#include "collimate/base/text.hpp"
#include "collimate/io/checkpoint.hpp"
#include "collimate/io/json_lines.hpp"
#include "collimate/io/run_folder.hpp"
#include "collimate/io/safetensors.hpp"
#include "io/file.hpp"

namespace collimate {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::size_t longest_value = 1000;  // a prompt template is shown whole, a vocabulary is not
constexpr std::uint64_t longest_line = 1 << 20;

/// A value on one line, cut where it is long.
std::string shown(std::string_view text) {
  const std::string quoted = json_text(text.substr(0, longest_value));
  const std::string inside = quoted.substr(1, quoted.size() - 2);
  return text.size() <= longest_value ? inside : inside + fmt::format("... ({} bytes)", text.size());
}

std::string indented(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  for (std::size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 3) text.insert(at + 1, "  ");
  return "  " + text + "\n";
}

/// What the ranks say of themselves, said once where consecutive ranks say the same.
std::string ranks_text(const std::vector<std::string>& attributes) {
  std::string out;
  for (std::size_t first = 0, next = 0; first < attributes.size(); first = next) {
    while (next < attributes.size() && attributes[next] == attributes[first]) ++next;
    if (attributes[first].empty()) continue;
    const Json json = Json::parse(attributes[first], nullptr, false);
    out += next - first == 1 ? fmt::format("rank {}\n", first) : fmt::format("ranks {} to {}\n", first, next - 1);
    out += indented(json.is_discarded() ? shown(attributes[first]) : json.dump(2));
  }
  return out;
}

std::string inspect_checkpoint(const std::string& path, const DescribeMeta& describe) {
  const CheckpointReader reader(path);
  reader.check_parts();
  const auto attributes = reader.attributes();
  std::string out = fmt::format("checkpoint {}\n  {} in {}, {} tensors\n", path, human_bytes(reader.bytes()), counted(std::ssize(attributes), "part"),
                                reader.tensors().size());
  const Sections sections = describe ? describe(reader.meta()) : Sections{{"meta", Json::parse(reader.meta()).dump(2)}};
  for (const auto& [title, lines] : sections) out += title + "\n" + indented(lines);
  out += ranks_text(attributes) + "tensors\n";
  for (const CheckpointTensor& tensor : reader.tensors())
    out += fmt::format("  {} {} {}, {}\n", tensor.name, name_of(tensor.dtype), tensor.shape.text(),
                       human_bytes(tensor.shape.count() * static_cast<std::int64_t>(size_of(tensor.dtype))));
  return out;
}

/// The last whole line of a file, "" if it has none.
std::string last_line(const std::string& path) {
  const File file(path, File::Mode::read);
  const std::uint64_t size = file.size(), bytes = std::min(size, longest_line);
  std::string text(bytes, '\0');
  file.read_at(size - bytes, text.data(), bytes);
  const auto end = text.rfind('\n');
  if (end == std::string::npos) return "";
  const auto begin = end == 0 ? std::string::npos : text.rfind('\n', end - 1);
  return text.substr(begin == std::string::npos ? 0 : begin + 1, end - (begin == std::string::npos ? 0 : begin + 1));
}

std::string inspect_checkpoints(const std::string& path) {
  std::string out;
  std::vector<std::string> names, passed_over;
  const std::string latest = latest_checkpoint(path, "", &passed_over);
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  for (const std::string& name : names)
    out += fmt::format("  {}{}\n", name, name == fs::path(latest).filename() ? " (the latest complete one)" : "");
  for (const std::string& reason : passed_over) out += fmt::format("  passed over: {}\n", reason);
  return out.empty() ? "  none\n" : out;
}

std::string inspect_run(const std::string& path) {
  const auto at = [&](const char* name) { return (fs::path(path) / name).string(); };
  std::string out = fmt::format("run {}\n", path);
  if (fs::exists(at("deck.ini"))) {
    for (const std::string& line : split(read_file(at("deck.ini")), '\n'))
      if (line.starts_with("stages")) {
        out += fmt::format("  {}\n", line);
        break;  // those of [run]; others have stages, too
      }
  }
  for (const char* name : {"metrics.jsonl", "samples.jsonl", "timings.jsonl"}) {
    const std::string file = at(name);
    if (!fs::exists(file) || fs::file_size(file) == 0) continue;
    out += fmt::format("last of {} ({})\n  {}\n", name, human_bytes(static_cast<std::int64_t>(fs::file_size(file))), last_line(file));
  }
  if (fs::is_directory(at("checkpoints"))) out += "checkpoints\n" + inspect_checkpoints(at("checkpoints"));
  if (fs::exists(at("summary.json"))) out += "summary\n" + indented(Summary::load(at("summary.json")).text());
  return out;
}

std::string inspect_safetensors(const std::string& path) {
  const SafetensorsReader reader(path);
  const fs::path config = fs::path(reader.path()).parent_path() / "config.json";
  std::string out = fmt::format("safetensors {}\n", reader.path());
  for (const auto& [key, value] : reader.metadata()) out += fmt::format("  {} = {}\n", key, shown(value));
  std::map<std::string, std::int64_t> elements;
  for (const SafetensorsEntry& tensor : reader.tensors()) elements[tensor.dtype] += tensor.shape.count();
  out += fmt::format("  {} tensors\n", reader.tensors().size());
  for (const auto& [dtype, count] : elements) out += fmt::format("  {} numbers of type {}\n", count, dtype);
  out += "tensors\n";
  for (const SafetensorsEntry& tensor : reader.tensors())
    out += fmt::format("  {} {} {}\n", tensor.name, tensor.dtype, tensor.shape.text());
  if (fs::exists(config)) out += "config.json\n" + indented(read_file(config.string()));
  return out;
}

std::string attribute_value(const Hdf5File& file, const std::string& object, const std::string& key) {
  try {
    return std::to_string(file.integer_attribute(object, key));
  } catch (const Error&) {
  }
  try {
    return shown(file.text_attribute(object, key));
  } catch (const Error&) {
    return "(of another type)";
  }
}

std::string describe_dataset(const Hdf5File& file, const std::string& name) {
  try {
    const Hdf5Info info = file.info(name);
    return fmt::format("{} {}", name_of(info.dtype), info.shape.text());
  } catch (const Error&) {
  }
  try {
    return shown(file.read_text(name));
  } catch (const Error&) {
    return "(of another type)";
  }
}

void inspect_object(const Hdf5File& file, const std::string& name, int depth, std::string& out) {
  const std::string space(static_cast<std::size_t>(2 * depth), ' ');
  for (const std::string& key : file.attributes(name)) out += fmt::format("{}{} = {}\n", space, key, attribute_value(file, name, key));
  if (!file.is_group(name)) return;
  for (const std::string& child : file.children(name)) {
    const std::string path = name == "/" ? "/" + child : name + "/" + child;
    out += fmt::format("{}{}: {}\n", space, child, file.is_group(path) ? "group" : describe_dataset(file, path));
    inspect_object(file, path, depth + 1, out);
  }
}

std::string inspect_hdf5(const std::string& path) {
  const Hdf5File file = Hdf5File::open(path);
  std::string out = fmt::format("HDF5 file {}, {}\n", path, human_bytes(static_cast<std::int64_t>(fs::file_size(path))));
  inspect_object(file, "/", 1, out);
  return out;
}

bool starts_like_hdf5(const std::string& path) {
  constexpr std::string_view signature = "\x89HDF\r\n\x1a\n";
  const File file(path, File::Mode::read);
  std::string first(signature.size(), '\0');
  if (file.size() < first.size()) return false;
  file.read_at(0, first.data(), first.size());
  return first == signature;
}

}  // namespace

std::string inspect(const std::string& path, const DescribeMeta& describe) {
  require(fs::exists(path), "'{}' does not exist; check the path", path);
  if (fs::is_directory(path)) {
    const auto has = [&](const char* name) { return fs::exists(fs::path(path) / name); };
    if (has("manifest.json")) return inspect_checkpoint(path, describe);
    if (RunFolder::holds_run(path)) return inspect_run(path);
    if (has("model.safetensors") || has("model.safetensors.index.json")) return inspect_safetensors(path);
    require(!path.ends_with(".partial"), "the checkpoint '{}' was not finished, so it cannot be read; name another one, or let the run go on with --restart auto", path);
    if (!latest_checkpoint(path).empty()) return fmt::format("checkpoints in {}\n", path) + inspect_checkpoints(path);
    fail("the folder '{}' is neither a checkpoint, nor a run folder, nor a Hugging Face model; name one of these, or a dataset", path);
  }
  if (starts_like_hdf5(path)) return inspect_hdf5(path);
  if (path.ends_with(".safetensors") || path.ends_with(".index.json") || look_at_file(path).kind == FileKind::safetensors)
    return inspect_safetensors(path);
  require_file_kind(path, {FileKind::text, FileKind::json}, "a dataset, a checkpoint, a run folder or a model");
  fail("'{}' is neither an HDF5 file nor a safetensors file; name a dataset, checkpoint, run folder or model", path);
}

}  // namespace collimate
