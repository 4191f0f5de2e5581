#pragma once
#include "collimate/base/atomic_file.hpp"
#include "collimate/rlhf/session.hpp"

namespace collimate::rlhf {

/// Whether a stage of the deck starts from random numbers, at once or by way of another stage that it names.
bool starts_from_random(const Options& options);

/// Reads every checkpoint that the stages of the deck will start or go on from, and stops where one is damaged.
void check_checkpoints(const Session& session);

/// With --restart auto: goes back to the last checkpoint of the run folder, which must be of the same deck and instruction set.
void take_up(Session& session);

/// Runs the stages of the deck in order; with --restart auto it passes over what is done and goes on from the last checkpoint. The summary
/// is complete afterwards.
void run_stages(Session& session);

/// What the stage prepare makes: it lies beside the run folder, as session.prepared_in says, until finish moves it there, and goes with
/// this object. So everything that can be wrong with the stages is found before anything of the run is written. Collective.
class Preparation {
 public:
  explicit Preparation(Session& session);  ///< does nothing where the deck has no such stage, or a restart finds its data
  Preparation(const Preparation&) = delete;
  Preparation& operator=(const Preparation&) = delete;
  ~Preparation();
  void finish();

 private:
  Session& session_;
  std::optional<PartialFolder> place_;  // rank 0
  std::string report_;
  double seconds_ = 0;
};

/// All stages of the deck, without running any. Collective.
class StagePlans {
 public:
  explicit StagePlans(Session& session);  ///< checks deck, files and tokenizers
  /// Plans the memory of each stage as the deck says now; may be repeated. Returns what it found, line by line; what is odd and no error goes to
  /// session.warnings. Throws where a stage does not fit (exit 3).
  std::string plan();
  std::int64_t most_grains() const { return most_grains_; }  ///< of an optimizer step, of a replica

 private:
  Session& session_;
  std::vector<std::string> warnings_;  // before the first plan
  std::vector<std::function<std::string()>> plans_;  // of each stage
  std::int64_t most_grains_ = 1;
};

/// The table at the end: before and after, samples, where things are.
std::string closing_report(const Session& session);

}  // namespace collimate::rlhf
