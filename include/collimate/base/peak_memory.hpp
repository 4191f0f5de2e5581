#pragma once
#include <cstdint>

namespace collimate {

/// The largest resident memory of this process, in bytes, as the operating system counts it; 0 where it does not say.
class PeakMemory {
 public:
  /// Counts from now on. False where the system cannot (Linux can where /proc/self/clear_refs may be written): it then goes on counting.
  bool restart();
  std::int64_t bytes() const;        ///< since it was restarted
  std::int64_t whole_bytes() const;  ///< since the process started

 private:
  std::int64_t before_ = 0;
};

}  // namespace collimate
