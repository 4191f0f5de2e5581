#include "device/cpu/host_memory.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <fstream>

#include "collimate/base/control_group.hpp"

namespace collimate {

std::vector<MemoryLimit> host_memory_limits(const std::string& root) {
  const auto pages = static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES)), page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<MemoryLimit> limits = {{"the node", pages * page}};
  for (const ControlGroup& group : control_groups("memory", root)) {
    std::ifstream limit(group.folder + (group.v2 ? "/memory.max" : "/memory.limit_in_bytes"));
    if (std::size_t bytes = 0; limit >> bytes && bytes < limits[0].bytes)  // without a limit: "max", or a number beyond any memory
      limits.push_back({fmt::format("the control group {}", group.name), bytes});
  }
  return limits;
}

}  // namespace collimate
