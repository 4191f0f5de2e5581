#pragma once
#include <string>
#include <vector>

#include "collimate/rlhf/save_models.hpp"
#include "collimate/rlhf/session.hpp"

namespace collimate::rlhf {

/// What a checkpoint of a stage says of the stage.
struct StageState {
  std::string stage;
  std::int64_t step = 0, steps = 0;  ///< done, and in all
  bool complete = false;
  std::string progress = "{}";  ///< JSON object, what else the stage needs to go on
};

/// With run.keep_best: takes note of the stage's evaluation after a step, and says whether it is the best so far. The summary holds which one is.
bool note_evaluation(Session& session, const std::string& stage, std::int64_t step);
/// Says, at a stage's end, where the best one is.
void note_end(Session& session, const std::string& stage, std::int64_t steps);
/// Whether the checkpoint of a step is one that stays: the best, or one of run.keep_every.
bool stays(const Session& session, const std::string& stage, std::int64_t step);
/// A sentence where the best of a stage is to be kept, and nothing is measured before its end; or nothing.
std::vector<std::string> keeping_warnings(const Session& session, const std::string& stage, bool measured);

/// Publishes a checkpoint of a stage: checkpoints/<stage> of a finished one, checkpoints/<stage>-<step> of one that can go on. Older ones go, but
/// for those that the deck keeps; of a running stage the last two stay. File positions and the summary are added. Collective.
void save_stage(Session& session, const StageState& state, const std::vector<ModelToSave>& models, const TextRules& text);

}  // namespace collimate::rlhf
