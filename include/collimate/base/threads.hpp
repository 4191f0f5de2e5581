#pragma once
#include <string>
#include <vector>

namespace collimate {

std::vector<int> bound_cores();                       ///< the cores this process may run on (its affinity mask), ascending
int online_cores();                                   ///< of the whole node, whether this process may use them or not
std::string core_list(const std::vector<int>& cores); ///< "0-3,8"

/// Threads for one rank: what OMP_NUM_THREADS says if it is a positive number, else the cores of its mask divided
/// by the ranks that share them, at least 1.
int threads_for(int cores, int ranks_sharing, const char* omp_num_threads);
/// Sets OpenMP's threads by that rule from this process's mask and environment; returns their number. Flushing of
/// denormal numbers (numerics contract R6) is a matter of each thread: the kernels set it where their threads start.
int set_threads(int ranks_sharing);

}  // namespace collimate
