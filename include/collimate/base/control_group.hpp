#pragma once
#include <optional>
#include <string>
#include <vector>

namespace collimate {

/// A control group that this process is in: its own, or one above it.
struct ControlGroup {
  std::string name;    ///< "/job/step"; "/" for the root, and for the group that a container sees as its root
  std::string folder;  ///< where the kernel shows its limits
  bool v2 = false;     ///< of version 2: files have other names
};

/// The groups of a controller, such as "memory" or "cpu", the innermost first. root: "" but in tests, which fake /proc and /sys there.
std::vector<ControlGroup> control_groups(const std::string& controller, const std::string& root = "");

/// How much processor time the processes of a control group may use together.
struct CpuQuota {
  double cores = 0;   ///< 1.5: as much as one and a half cores give
  std::string group;  ///< the group's name
};
/// The smallest quota of this process's groups; nothing where there is none.
std::optional<CpuQuota> cpu_quota(const std::string& root = "");

}  // namespace collimate
