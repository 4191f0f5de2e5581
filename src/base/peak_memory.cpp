#include "collimate/base/peak_memory.hpp"

#include <algorithm>
#include <fstream>
#include <string>

namespace collimate {

bool PeakMemory::restart() {
  before_ = whole_bytes();
  std::ofstream file("/proc/self/clear_refs");
  return static_cast<bool>(file << "5" << std::flush);  // Linux sets VmHWM to the memory that is resident now
}

std::int64_t PeakMemory::bytes() const {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  return 0;
}

std::int64_t PeakMemory::whole_bytes() const { return std::max(before_, bytes()); }

}  // namespace collimate
