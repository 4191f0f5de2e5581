#include "device/cpu/host_memory.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <fstream>

namespace collimate {

std::vector<MemoryLimit> host_memory_limits(const std::string& root) {
  const auto pages = static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES)), page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<MemoryLimit> limits = {{"the node", pages * page}};
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "4:memory:/job/step" of v1, "0::/job/step" of v2
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = fmt::format(",{},", line.substr(first + 1, second - first - 1));
    const bool v2 = controllers == ",,";
    if (!v2 && controllers.find(",memory,") == std::string::npos) continue;
    const std::string mount = root + (v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory"), file = v2 ? "/memory.max" : "/memory.limit_in_bytes";
    for (std::string group = line.substr(second + 1);; group.resize(group.rfind('/'))) {
      if (group.ends_with('/')) group.pop_back();
      std::ifstream limit(mount + group + file);
      if (std::size_t bytes = 0; limit >> bytes && bytes < limits[0].bytes)  // without a limit: "max", or a number beyond any memory
        limits.push_back({fmt::format("the control group {}", group.empty() ? "/" : group), bytes});
      if (group.find('/') == std::string::npos) break;
    }
  }
  return limits;
}

}  // namespace collimate
