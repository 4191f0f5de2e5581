#pragma once
#include <optional>
#include <string>
#include <vector>

#include "collimate/rlhf/session.hpp"

namespace collimate::rlhf {

enum class InputKind { dataset, checkpoint, file };

/// What a stage reads, by the option that names it.
struct StageInput {
  std::string option, value;
  InputKind kind;
  bool needed = false;  ///< the stage cannot be without it
};
std::vector<StageInput> inputs_of(const Options& options, const std::string& stage);

/// JSON: a checksum of each thing that the deck names, by option. Those of other stages than the running one are there as far as they exist.
std::string input_checksums(const Session& session, const std::string& stage);

/// Where a stage that was begun goes on.
struct Resume {
  std::string folder;
  bool complete = false;  ///< nothing is left to do: it has as many steps as the deck asks for
};
/// With --restart auto; nothing where the stage has no checkpoint yet.
std::optional<Resume> find_resume(const Session& session, const std::string& stage);

/// A run goes on only as what it was: of the same instruction set, and of the same deck but for paths, which check_inputs compares by what lies
/// there, and the number of steps, where those that are done would have been the same.
void check_restart(const Session& session, const std::string& stage, const Resume& resume);
/// Stops where the deck names other data, checkpoints or word lists than the checkpoint was made with.
void check_inputs(const Session& session, const Resume& resume);

/// The file positions and the summary from which a stage goes on.
struct StageRecord {
  std::string positions, summary;  ///< JSON
};
StageRecord record_of(const Resume& resume);

/// A finished stage that is to go on is no longer finished: its checkpoint NAME becomes NAME-STEP. To be called by one rank.
void reopen(const Session& session, const std::string& stage);

}  // namespace collimate::rlhf
