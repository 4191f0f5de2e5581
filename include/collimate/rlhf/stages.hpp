#pragma once
#include "collimate/rlhf/session.hpp"

namespace collimate::rlhf {

/// Reads every checkpoint that the stages of the deck will start or go on from, and stops where one is damaged.
void check_checkpoints(const Session& session);

/// With --restart auto: goes back to the last checkpoint of the run folder, which must be of the same deck and instruction set.
void take_up(Session& session);

/// Runs the stages of the deck in order; with --restart auto it passes over what is done and goes on from the last checkpoint. The summary
/// is complete afterwards.
void run_stages(Session& session);

/// Checks deck, files, tokenizers and memory of all stages without running any, and returns what it found, line by line.
std::string check_stages(Session& session);

/// The table at the end: before and after, samples, where things are.
std::string summary_table(const Session& session);

}  // namespace collimate::rlhf
