#pragma once
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collimate/io/json_lines.hpp"
#include "collimate/io/run_lock.hpp"

namespace collimate {

/// Results of a run by flat keys such as "sft.eval_loss", saved as one JSON object sorted by key.
class Summary {
 public:
  void set(const std::string& key, double value) { values_[key] = json_number(value, key); }
  template <std::integral Integer>
  void set(const std::string& key, Integer value) {
    if constexpr (std::same_as<Integer, bool>)
      values_[key] = value ? "true" : "false";
    else
      values_[key] = std::to_string(value);
  }
  void set(const std::string& key, std::string_view value) { values_[key] = json_text(value); }
  void set(const std::string& key, const char* value) { values_[key] = json_text(value); }
  bool has(const std::string& key) const { return values_.contains(key); }
  double number(const std::string& key) const;  ///< throws if it is missing or no number
  std::string text() const;                     ///< the JSON text
  void save(const std::string& path) const;     ///< whole or not at all
  static Summary load(const std::string& path);

 private:
  std::map<std::string, std::string> values_;  ///< key -> JSON
};

/// Byte positions of the files that must be the same after a restart as in an uninterrupted run.
struct RunPositions {
  std::int64_t metrics = 0, samples = 0, hashes = 0;
  std::string to_json() const;
  static RunPositions from_json(const std::string& text);
};

/// What to do where a run folder holds an earlier run.
enum class Existing { refuse, replace, go_on };

/// The folder of one run: deck.ini, log.txt, metrics.jsonl, timings.jsonl, samples.jsonl, hashes.jsonl, summary.json, checkpoints/, lock.
/// Only rank 0 makes one. A folder that does not hold a run is never replaced, one that another run uses never touched; what
/// goes is what runs write: these files, and the checkpoints of `stages`, by whose names they are known.
class RunFolder {
 public:
  /// lock: where it is held already.
  RunFolder(const std::string& path, Existing existing, std::span<const char* const> stages, std::optional<RunLock> lock = {});
  /// Throws where no run could have this folder, and changes nothing. Links within it are not followed to replace what lies behind them.
  static void check(const std::string& path, Existing existing, std::span<const char* const> stages);
  /// True if `path` holds the files of a run.
  static bool holds_run(const std::string& path);
  const std::string& path() const { return path_; }
  /// With Existing::replace, the files and folders that no run has written, and that stay: "notes.txt", "checkpoints/best".
  const std::vector<std::string>& left() const { return left_; }
  bool locked() const { return lock_->holds(); }  ///< false on a file system without locks
  std::string file(std::string_view name) const;  ///< path of a file of this folder
  std::string log() const { return file("log.txt"); }
  std::string checkpoints() const { return file("checkpoints"); }
  void write_deck(const std::string& resolved) const;
  void write_summary(const Summary& summary) const { summary.save(file("summary.json")); }

  JsonLines& metrics() { return metrics_; }   ///< numbers that the deck defines
  JsonLines& timings() { return timings_; }   ///< times, tokens/s, memory: not the same in every run
  JsonLines& samples() { return samples_; }
  JsonLines& hashes() { return hashes_; }     ///< of every tensor, now and then
  RunPositions positions();                   ///< syncs the files first
  void restart_at(const RunPositions& positions);  ///< cuts metrics, samples and hashes; timings and log go on

 private:
  std::vector<std::string> left_;
  std::string path_;
  std::optional<RunLock> lock_;
  JsonLines metrics_, timings_, samples_, hashes_;
};

}  // namespace collimate
