#include <algorithm>
#include <charconv>
#include <filesystem>

#include "collimate/base/error.hpp"
#include "collimate/io/checkpoint.hpp"
#include "io/file.hpp"
#include "io/manifest.hpp"

namespace collimate {

namespace {

namespace fs = std::filesystem;

/// A complete checkpoint of a folder.
struct Complete {
  std::int64_t sequence;
  fs::path path;
  auto operator<=>(const Complete&) const = default;
};

bool is_partial(const fs::path& path) { return path.extension() == ".partial"; }

/// The rest of a replacement that was finished, or that a crash cut between its two renames.
bool is_superseded(const fs::path& path) { return path.extension() == ".replaced" && fs::exists(path.parent_path() / path.stem()); }

/// The name that a checkpoint has, or had before a crash.
std::string final_name(const fs::path& path) {
  return is_partial(path) || path.extension() == ".replaced" ? path.stem().string() : path.filename().string();
}

/// Whether a name is the prefix and a number: copies that people make, such as sft-best, are no one's to remove.
bool is_numbered(std::string_view name, std::string_view prefix) {
  return name.starts_with(prefix) && name.size() > prefix.size() && name.find_first_not_of("0123456789", prefix.size()) == std::string_view::npos;
}

std::int64_t number_of(std::string_view name, std::string_view prefix) {
  std::int64_t number = -1;
  std::from_chars(name.data() + prefix.size(), name.data() + name.size(), number);
  return number;
}

std::vector<fs::path> folders(const std::string& checkpoints, const std::string& prefix) {
  std::vector<fs::path> list;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(checkpoints, error))
    if (entry.is_directory(error) && (prefix.empty() || is_numbered(final_name(entry.path()), prefix))) list.push_back(entry.path());
  std::sort(list.begin(), list.end());
  return list;
}

/// Files that a checkpoint has, or a writer that was killed has left in it.
bool is_of_checkpoint(const std::string& name) {
  return name == "manifest.json" || name.starts_with("part-") || (name.starts_with(".") && name.ends_with(".part"));
}

/// In the order of publishing.
std::vector<Complete> complete_ones(const std::string& checkpoints, const std::string& prefix, std::vector<std::string>* passed_over) {
  std::vector<Complete> list;
  for (const fs::path& path : folders(checkpoints, prefix)) {
    if (is_superseded(path)) continue;
    try {
      require(!is_partial(path), "the checkpoint '{}' was not finished", path.string());
      const Manifest manifest = read_manifest(path.string());
      for (const StoredPart& part : manifest.parts) check_file(part, path.string());
      list.push_back({manifest.sequence, path});
    } catch (const Error& error) {
      if (passed_over) passed_over->push_back(error.what());
    }
  }
  std::sort(list.begin(), list.end());
  return list;
}

}  // namespace

std::string latest_checkpoint(const std::string& checkpoints, const std::string& prefix, std::vector<std::string>* passed_over) {
  const auto list = complete_ones(checkpoints, prefix, passed_over);
  return list.empty() ? "" : list.back().path.string();
}

void remove_old_checkpoints(const std::string& checkpoints, int keep, const std::string& prefix,
                            const std::function<bool(std::int64_t)>& stays) {
  ensure(keep >= 0, "{} checkpoints cannot be kept", keep);
  auto list = complete_ones(checkpoints, prefix, nullptr);
  list.resize(list.size() - std::min(list.size(), static_cast<std::size_t>(keep)));
  std::vector<fs::path> removed;
  for (const Complete& old : list)
    if (!stays || !stays(number_of(final_name(old.path), prefix))) removed.push_back(old.path);
  for (const fs::path& path : folders(checkpoints, prefix))
    if (is_partial(path) || is_superseded(path)) removed.push_back(path);
  for (const fs::path& path : removed) remove_checkpoint(path.string());
}

std::vector<std::string> checkpoints_of_stage(const std::string& checkpoints, const std::string& stage) {
  std::vector<std::string> list;
  for (const fs::path& path : folders(checkpoints, "")) {
    const std::string name = final_name(path);
    if (fs::is_symlink(path) || (name != stage && !is_numbered(name, stage + "-"))) continue;
    for (const auto& entry : fs::directory_iterator(path))
      require(is_of_checkpoint(entry.path().filename().string()),
              "the checkpoint '{}' holds '{}', which does not belong to it, so nothing is removed: move that, or choose another run.folder", path.string(),
              entry.path().filename().string());
    list.push_back(path.string());
  }
  return list;
}

void rename_checkpoint(const std::string& folder, const std::string& name) {
  if (fs::exists(name)) remove_checkpoint(name);
  std::error_code error;
  fs::rename(folder, name, error);
  require(!error, "cannot rename the checkpoint '{}' to '{}': {}", folder, name, error.message());
  sync_folder(fs::path(name).parent_path().string());
}

void remove_checkpoint(const std::string& folder) {
  std::error_code error;
  fs::remove(fs::path(folder) / "manifest.json", error);  // the first to go
  fs::remove_all(folder, error);
  require(!error, "cannot remove the old checkpoint '{}': {}", folder, error.message());
}

}  // namespace collimate
