#include <algorithm>
#include <filesystem>

#include "collimate/base/error.hpp"
#include "collimate/io/checkpoint.hpp"
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

std::vector<fs::path> folders(const std::string& checkpoints, const std::string& prefix) {
  std::vector<fs::path> list;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(checkpoints, error))
    if (entry.is_directory(error) && entry.path().filename().string().starts_with(prefix)) list.push_back(entry.path());
  std::sort(list.begin(), list.end());
  return list;
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

void remove_old_checkpoints(const std::string& checkpoints, int keep, const std::string& prefix) {
  ensure(keep >= 0, "{} checkpoints cannot be kept", keep);
  auto list = complete_ones(checkpoints, prefix, nullptr);
  list.resize(list.size() - std::min(list.size(), static_cast<std::size_t>(keep)));
  std::vector<fs::path> removed;
  for (const Complete& old : list) removed.push_back(old.path);
  for (const fs::path& path : folders(checkpoints, prefix))
    if (is_partial(path) || is_superseded(path)) removed.push_back(path);
  for (const fs::path& path : removed) {
    // The manifest goes first: a removal that a crash cuts short leaves nothing that looks complete.
    std::error_code error;
    fs::remove(path / "manifest.json", error);
    fs::remove_all(path, error);
    require(!error, "cannot remove the old checkpoint '{}': {}", path.string(), error.message());
  }
}

}  // namespace collimate
