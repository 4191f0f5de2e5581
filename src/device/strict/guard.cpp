#include "device/strict/guard.hpp"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>

namespace collimate {
namespace {

// A signal handler may not allocate or lock, so the ranges stand in a table of fixed size.
struct Range {
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::size_t> bytes{0};
};
std::array<Range, 256> ranges;

void on_fault(int signal, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  for (const Range& range : ranges)
    if (address >= range.begin && address < range.begin + range.bytes) {
      constexpr char text[] = "error: host code touched memory of the strict device: on a GPU this is a crash; bring it to the host by a copy\n";
      [[maybe_unused]] const auto written = ::write(2, text, sizeof text - 1);
      ::_exit(1);
    }
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

}  // namespace

void guard_memory(void* begin, std::size_t bytes) {
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGSEGV, &action, nullptr);
  for (Range& range : ranges)
    if (range.begin == 0) {
      range.bytes = bytes;
      range.begin = reinterpret_cast<std::uintptr_t>(begin);
      return;
    }
}

void forget_memory(void* begin) noexcept {
  for (Range& range : ranges)
    if (range.begin == reinterpret_cast<std::uintptr_t>(begin)) range.begin = 0;
}

}  // namespace collimate
