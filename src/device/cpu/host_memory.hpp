#pragma once
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "collimate/device/device.hpp"

namespace collimate {

/// The memory of the node, and the limits of the control groups that this process is in, from its own up to the top (v2's memory.max,
/// v1's memory.limit_in_bytes), and what Slurm grants the job on this node (SLURM_MEM_PER_NODE, or SLURM_MEM_PER_CPU times
/// SLURM_CPUS_ON_NODE; MiB), which some sites enforce without control groups. root: where /proc and /sys are looked for; variable:
/// std::getenv, or another one in tests.
std::vector<MemoryLimit> host_memory_limits(const std::string& root = "",
                                            const std::function<const char*(const char*)>& variable = [](const char* name) { return std::getenv(name); });

}  // namespace collimate
