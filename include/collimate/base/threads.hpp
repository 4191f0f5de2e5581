#pragma once
#include <string>
#include <vector>

namespace collimate {

std::vector<int> bound_cores();                       ///< the cores this process may run on (its affinity mask), ascending
int online_cores();                                   ///< of the whole node, whether this process may use them or not
std::string core_list(const std::vector<int>& cores); ///< "0-3,8"

/// Threads for one rank: what OMP_NUM_THREADS says if it is a positive number, else the cores of its mask divided by the ranks that share
/// them, or its part of a control group's quota (in cores; 0: none) where that is less; at least 1.
int threads_for(int cores, int ranks_sharing, double quota, const char* omp_num_threads);
/// Sets OpenMP's threads by that rule from this process's mask and environment; returns their number. Flushing of
/// denormal numbers (numerics contract R6) is a matter of each thread: the kernels set it where their threads start.
int set_threads(int ranks_sharing, double quota);
int set_threads();  ///< of a process without ranks

/// Lets threads that wait for each other spin for microseconds and then sleep, unless OMP_WAIT_POLICY or GOMP_SPINCOUNT says otherwise.
/// GNU OpenMP spins for milliseconds, and takes the cores from the thread it waits for as soon as anything else runs on the machine:
/// perf/README.md has the figures. It reads its environment before main, so the program starts itself again once, with the same
/// `words` (argv); where the system refuses that, nothing happens. Call it first in main.
void spin_briefly(char** words);

/// Opens /dev/null for each of the three standard streams that was closed (`>&-`), so that no file of ours gets its number. Call it before any
/// file is opened.
void open_standard_streams();

}  // namespace collimate
