#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace collimate {

/// Seconds since it was made or restarted.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  double restart();  ///< the seconds so far, then from zero

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Sums the time of named phases: `const auto timing = timers.phase("rollout");` counts to the end of the scope.
/// For one thread; phases may nest, then the outer one counts the inner one's time too.
class PhaseTimers {
 public:
  struct Total {
    std::string name;
    double seconds = 0.0;
    std::int64_t calls = 0;
  };
  class Scope {
   public:
    Scope(PhaseTimers& timers, std::size_t index) : timers_(timers), index_(index) {}
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope();

   private:
    PhaseTimers& timers_;
    std::size_t index_;
    Stopwatch watch_;
  };
  [[nodiscard]] Scope phase(std::string_view name);
  double seconds(std::string_view name) const;  ///< 0 for a phase that never ran
  const std::vector<Total>& totals() const { return totals_; }  ///< in order of first use
  std::string table() const;                    ///< one line per phase: seconds, calls, milliseconds per call
  void clear() { totals_.clear(); }             ///< outside of every phase

 private:
  std::vector<Total> totals_;
};

}  // namespace collimate
