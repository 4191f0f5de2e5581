#pragma once
#include <string>

#include "collimate/rlhf/options.hpp"

namespace collimate::rlhf {

// One word for a ZeRO stage and a placement, as RLHF scripts for Colossal-AI use it.

/// What --help says of each word.
std::string strategies_text();
/// Makes machine.zero and the placements those of machine.strategy, with or without "colossalai_" before; an unknown word is refused with the
/// nearest one. Does nothing where there is none.
void apply_strategy(MachineOptions& machine);

}  // namespace collimate::rlhf
