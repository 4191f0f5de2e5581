#include "collimate/base/control_group.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>

namespace collimate {
namespace {

namespace fs = std::filesystem;

/// Where version 1 shows a controller: under its own name, or under those of all that are mounted together ("cpu,cpuacct").
std::string mount_v1(const std::string& root, const std::string& controller, const std::string& together) {
  const std::string own = root + "/sys/fs/cgroup/" + controller;
  std::error_code error;
  return fs::exists(own, error) ? own : root + "/sys/fs/cgroup/" + together;
}

/// Microseconds of processor time in a period, over the period.
std::optional<double> cores_of(const ControlGroup& group) {
  double quota = 0, period = 0;
  if (group.v2) {
    if (std::ifstream file(group.folder + "/cpu.max"); !(file >> quota >> period)) return std::nullopt;  // "max 100000": none
  } else {
    if (std::ifstream file(group.folder + "/cpu.cfs_quota_us"); !(file >> quota)) return std::nullopt;  // -1: none
    if (std::ifstream file(group.folder + "/cpu.cfs_period_us"); !(file >> period)) return std::nullopt;
  }
  return quota > 0 && period > 0 ? std::optional(quota / period) : std::nullopt;
}

}  // namespace

std::vector<ControlGroup> control_groups(const std::string& controller, const std::string& root) {
  std::vector<ControlGroup> all;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "4:memory:/job/step" of version 1, "0::/job/step" of version 2
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && fmt::format(",{},", controllers).find("," + controller + ",") == std::string::npos) continue;
    const std::string mount = v2 ? root + "/sys/fs/cgroup" : mount_v1(root, controller, controllers);
    for (std::string group = line.substr(second + 1);; group.resize(group.rfind('/'))) {
      if (group.ends_with('/')) group.pop_back();
      all.push_back({group.empty() ? "/" : group, mount + group, v2});
      if (group.find('/') == std::string::npos) break;
    }
  }
  return all;
}

std::optional<CpuQuota> cpu_quota(const std::string& root) {
  std::optional<CpuQuota> least;
  for (const ControlGroup& group : control_groups("cpu", root))
    if (const auto cores = cores_of(group); cores && (!least || *cores < least->cores)) least = {*cores, group.name};
  return least;
}

}  // namespace collimate
