#include "collimate/base/timer.hpp"

#include <array>
#include <ctime>
#include <utility>

namespace collimate {

double Stopwatch::restart() {
  const auto now = std::chrono::steady_clock::now();
  const auto before = std::exchange(start_, now);
  return std::chrono::duration<double>(now - before).count();
}

std::string local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  std::array<char, 64> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S %z", &parts)};
}

}  // namespace collimate
