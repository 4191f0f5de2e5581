#include "device/cpu/host_memory.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <fstream>

#include "collimate/base/control_group.hpp"

namespace collimate {

std::vector<MemoryLimit> host_memory_limits(const std::string& root, const std::function<const char*(const char*)>& variable) {
  const auto pages = static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES)), page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<MemoryLimit> limits = {{"the node", pages * page}};
  for (const ControlGroup& group : control_groups("memory", root)) {
    std::ifstream limit(group.folder + (group.v2 ? "/memory.max" : "/memory.limit_in_bytes"));
    if (std::size_t bytes = 0; limit >> bytes && bytes < limits[0].bytes)  // without a limit: "max", or a number beyond any memory
      limits.push_back({fmt::format("the control group {}", group.name), bytes});
  }
  const auto mebibytes = [&](const char* name) {
    const char* text = variable(name);
    return text ? std::strtoull(text, nullptr, 10) : 0;  // 0: all of the node
  };
  const std::size_t job = mebibytes("SLURM_MEM_PER_NODE"), core = mebibytes("SLURM_MEM_PER_CPU");
  if (job > 0)
    limits.push_back({"the Slurm job (SLURM_MEM_PER_NODE)", job << 20});
  else if (const std::size_t granted = core * mebibytes("SLURM_CPUS_ON_NODE"); granted > 0)
    limits.push_back({"the Slurm job (SLURM_MEM_PER_CPU)", granted << 20});
  return limits;
}

}  // namespace collimate
