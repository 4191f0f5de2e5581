#include "collimate/io/run_folder.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/io/checkpoint.hpp"

namespace collimate {

namespace {

namespace fs = std::filesystem;

constexpr std::array own_files{"deck.ini",      "log.txt",      "metrics.jsonl", "timings.jsonl",
                               "samples.jsonl", "hashes.jsonl", "summary.json",  "report.html"};
using Stages = std::span<const char* const>;

bool counts(const fs::directory_entry& entry) {  // neither a lock nor what a refused or killed start has prepared
  const std::string name = entry.path().filename().string();
  return name != RunLock::file_name && !PartialFolder::is_one(name);
}

/// The checkpoints that a run has left in its folder.
std::vector<std::string> checkpoints_of_run(const fs::path& path, Stages stages) {
  const fs::path checkpoints = path / "checkpoints";
  require(
      !fs::is_symlink(checkpoints),
      "'{}' is a symbolic link, and what lies behind it may be others', so it is not replaced: remove the link, or choose another run.folder",
      checkpoints.string());
  std::vector<std::string> all;
  for (const char* stage : stages) std::ranges::move(checkpoints_of_stage(checkpoints.string(), stage), std::back_inserter(all));
  return all;
}

/// Removes what a run has written, and nothing else; returns the names of what stays.
std::vector<std::string> remove_run(const fs::path& path, Stages stages) {
  std::vector<std::string> left;
  const fs::path checkpoints = path / "checkpoints";
  const std::vector<std::string> old = checkpoints_of_run(path, stages);
  for (const char* name : own_files) fs::remove(path / name);
  for (const std::string& folder : old) remove_checkpoint(folder);
  for (const auto& entry : fs::directory_iterator(path))
    if (counts(entry) && entry.path() != checkpoints) left.push_back(entry.path().filename().string());
  if (fs::is_directory(checkpoints))
    for (const auto& entry : fs::directory_iterator(checkpoints)) left.push_back((fs::path("checkpoints") / entry.path().filename()).string());
  std::sort(left.begin(), left.end());
  return left;
}

/// `path`, or the nearest place above it that there is.
fs::path nearest_place(const std::string& path) {
  fs::path place = fs::absolute(path);
  while (!fs::exists(fs::symlink_status(place)) && place.has_relative_path()) place = place.parent_path();
  return place;
}

/// Whether a folder is there, or can be made.
void check_place(const std::string& path) {
  const fs::path place = nearest_place(path);
  require(fs::is_directory(place), "cannot create the run folder '{}': '{}' is {}; choose another run.folder", path, place.string(),
          fs::exists(place) ? "not a folder" : "a symbolic link to a place that does not exist");
  for (const fs::path& name : fs::path(path)) static_cast<void>(fs::symlink_status(place / name));  // throws where it is too long
  require(::access(place.c_str(), W_OK | X_OK) == 0, "cannot write to '{}': {}; choose a run.folder that you may write to", place.string(),
          std::strerror(errno));
}

void check_content(const std::string& path, Existing existing, Stages stages) {
  const bool empty = std::none_of(fs::directory_iterator(path), {}, counts);
  require(existing != Existing::refuse || empty,
          "the run folder '{}' {}", path,
          RunFolder::holds_run(path) ? "already holds a run: continue it with --restart auto, start over with --restart replace, or choose another run.folder"
                                     : "is not empty: choose another run.folder");
  require(existing != Existing::replace || empty || RunFolder::holds_run(path),
          "the folder '{}' does not hold a run, so it is not replaced: choose another run.folder", path);
  if (existing == Existing::replace) checkpoints_of_run(path, stages);
}

[[noreturn]] void fail_on(const std::string& path, const fs::filesystem_error& problem) {
  fail("cannot use the run folder '{}': {}; choose another run.folder", path, problem.code().message());
}

/// Makes the folder ready for a run, locks it and returns its path. left: what was there and no run has written.
std::string prepared(const std::string& path, Existing existing, Stages stages, std::optional<RunLock>& lock,
                     std::vector<std::string>& left) {
  RunFolder::check(path, existing, stages);
  try {
    fs::create_directories(path);
    if (!lock) lock.emplace(path);
    check_content(path, existing, stages);  // a run that held the lock until now may have filled it
    if (existing == Existing::replace) left = remove_run(path, stages);
    fs::create_directories(fs::path(path) / "checkpoints");
  } catch (const fs::filesystem_error& problem) {
    fail_on(path, problem);
  }
  return path;
}

nlohmann::json parsed(const std::string& text, const std::string& what) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  require(json.is_object(), "{} is not a JSON object: it is damaged", what);
  return json;
}

}  // namespace

double Summary::number(const std::string& key) const {
  const auto found = values_.find(key);
  require(found != values_.end(), "the summary has no {}", key);
  const auto json = nlohmann::json::parse(found->second);
  require(json.is_number(), "{} of the summary is {}, not a number", key, found->second);
  return json.get<double>();
}

std::string Summary::text() const {
  std::string text = "{";
  for (const auto& [key, json] : values_) text += fmt::format("{}\n  {}: {}", text.size() > 1 ? "," : "", json_text(key), json);
  return text + "\n}\n";
}

void Summary::save(const std::string& path) const { write_file(path, text()); }

Summary Summary::load(const std::string& path) {
  Summary summary;
  const auto json = parsed(read_file(path), fmt::format("'{}'", path));
  for (const auto& [key, value] : json.items())
    summary.values_[key] = value.is_number_float() ? json_number(value.get<double>(), key) : value.dump();
  return summary;
}

std::string RunPositions::to_json() const { return JsonLine().add("metrics", metrics).add("samples", samples).add("hashes", hashes).text(); }

RunPositions RunPositions::from_json(const std::string& text) {
  const auto json = parsed(text, "the list of file positions in the checkpoint");
  const auto at = [&](const char* key) {
    require(json.contains(key) && json[key].is_number_integer(), "the checkpoint does not say how long {}.jsonl was", key);
    return json[key].get<std::int64_t>();
  };
  return {at("metrics"), at("samples"), json.contains("hashes") ? at("hashes") : 0};  // runs of older versions have none
}

RunFolder::RunFolder(const std::string& path, Existing existing, Stages stages, std::optional<RunLock> lock)
    : path_(prepared(path, existing, stages, lock, left_)),
      lock_(std::move(lock)),
      metrics_(file("metrics.jsonl")),
      timings_(file("timings.jsonl")),
      samples_(file("samples.jsonl")),
      hashes_(file("hashes.jsonl")) {}

void RunFolder::check(const std::string& path, Existing existing, Stages stages) {
  require(!path.empty(), "run.folder is empty: name the folder for the files of the run");
  try {
    check_place(path);
    if (fs::is_directory(path)) check_content(path, existing, stages);
  } catch (const fs::filesystem_error& problem) {
    fail_on(path, problem);
  }
}

bool RunFolder::holds_run(const std::string& path) {
  return fs::exists(fs::path(path) / "deck.ini") || fs::exists(fs::path(path) / "metrics.jsonl");
}

std::string RunFolder::file(std::string_view name) const { return (fs::path(path_) / name).string(); }

void RunFolder::write_deck(const std::string& resolved) const { write_file(file("deck.ini"), resolved); }

RunPositions RunFolder::positions() {
  metrics_.sync();
  samples_.sync();
  hashes_.sync();
  return {metrics_.position(), samples_.position(), hashes_.position()};
}

void RunFolder::restart_at(const RunPositions& positions) {
  metrics_.truncate_to(positions.metrics);
  samples_.truncate_to(positions.samples);
  hashes_.truncate_to(positions.hashes);
}

}  // namespace collimate
