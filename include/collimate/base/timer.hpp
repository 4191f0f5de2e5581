#pragma once
#include <chrono>
#include <string>

namespace collimate {

/// Seconds since it was made or restarted.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  double restart();  ///< the seconds so far, then from zero

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

std::string local_time();  ///< now, in the time zone of this machine: "2026-11-29 20:58:24 +0000"

}  // namespace collimate
