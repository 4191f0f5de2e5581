#pragma once
#include <string>
#include <vector>

#include "collimate/device/device.hpp"

namespace collimate {

/// The memory of the node, and the limits of the control groups that this process is in, from its own up to the top (v2's memory.max,
/// v1's memory.limit_in_bytes). root: where /proc and /sys are looked for.
std::vector<MemoryLimit> host_memory_limits(const std::string& root = "");

}  // namespace collimate
