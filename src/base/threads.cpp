#include "collimate/base/threads.hpp"

#include <fcntl.h>
#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "collimate/base/control_group.hpp"
#include "collimate/base/error.hpp"

namespace collimate {

std::vector<int> bound_cores() {
  // The kernel refuses masks smaller than its own: grow until it fits.
  for (int limit = 1024; limit <= 1 << 20; limit *= 2) {
    const auto release = [](cpu_set_t* set) { CPU_FREE(set); };
    const std::unique_ptr<cpu_set_t, decltype(release)> set(CPU_ALLOC(limit), release);
    const std::size_t bytes = CPU_ALLOC_SIZE(limit);
    CPU_ZERO_S(bytes, set.get());
    if (sched_getaffinity(0, bytes, set.get()) != 0) continue;
    std::vector<int> cores;
    for (int core = 0; core < limit; ++core)
      if (CPU_ISSET_S(core, bytes, set.get())) cores.push_back(core);
    return cores;
  }
  fail("the cores this process may run on cannot be read; set OMP_NUM_THREADS");
}

int online_cores() { return static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)); }

std::string core_list(const std::vector<int>& cores) {
  std::string out;
  for (std::size_t i = 0; i < cores.size();) {
    std::size_t last = i;
    while (last + 1 < cores.size() && cores[last + 1] == cores[last] + 1) ++last;
    out += fmt::format("{}{}", out.empty() ? "" : ",", cores[i]);
    if (last > i) out += fmt::format("-{}", cores[last]);
    i = last + 1;
  }
  return out;
}

int threads_for(int cores, int ranks_sharing, double quota, const char* omp_num_threads) {
  // "4,2" (threads per nesting level) counts as 4.
  if (const long wish = omp_num_threads ? std::strtol(omp_num_threads, nullptr, 10) : 0; wish > 0)
    return static_cast<int>(std::min(wish, 4096L));
  const int share = cores / std::max(1, ranks_sharing);
  return std::max(1, quota > 0 ? static_cast<int>(std::min<double>(share, quota)) : share);
}

int set_threads(int ranks_sharing, double quota) {
  const int threads = threads_for(static_cast<int>(bound_cores().size()), ranks_sharing, quota, std::getenv("OMP_NUM_THREADS"));
  omp_set_dynamic(0);  // the number is the deck's and the launcher's choice, not the load's
  omp_set_num_threads(threads);
  return threads;
}

int set_threads() { return set_threads(1, cpu_quota().value_or(CpuQuota{}).cores); }

void open_standard_streams() {
  for (int fd = 0; fd <= 2; ++fd)  // open gives the lowest number that is free, which is this one
    if (::fcntl(fd, F_GETFD) < 0 && errno == EBADF) static_cast<void>(::open("/dev/null", O_RDWR));
}

void spin_briefly(char** words) {
  if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
  if (setenv("GOMP_SPINCOUNT", "1000", 1) == 0) execv("/proc/self/exe", words);
}

}  // namespace collimate
