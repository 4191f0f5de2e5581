#include "collimate/base/timer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace collimate {

double Stopwatch::restart() {
  const auto now = std::chrono::steady_clock::now();
  const auto before = std::exchange(start_, now);
  return std::chrono::duration<double>(now - before).count();
}

PhaseTimers::Scope::~Scope() {
  timers_.totals_[index_].seconds += watch_.seconds();
  ++timers_.totals_[index_].calls;
}

PhaseTimers::Scope PhaseTimers::phase(std::string_view name) {
  const auto found = std::find_if(totals_.begin(), totals_.end(), [&](const Total& total) { return total.name == name; });
  const auto index = static_cast<std::size_t>(found - totals_.begin());
  if (found == totals_.end()) totals_.push_back({std::string(name), 0.0, 0});
  return {*this, index};
}

double PhaseTimers::seconds(std::string_view name) const {
  for (const Total& total : totals_)
    if (total.name == name) return total.seconds;
  return 0.0;
}

std::string PhaseTimers::table() const {
  std::string out;
  for (const Total& total : totals_)
    out += fmt::format("  {:<28} {:>10.3f} s {:>8} calls {:>12.3f} ms each\n", total.name, total.seconds, total.calls,
                       total.calls ? 1e3 * total.seconds / static_cast<double>(total.calls) : 0.0);
  return out;
}

}  // namespace collimate
