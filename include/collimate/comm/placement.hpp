#pragma once
#include <functional>
#include <string>
#include <vector>

#include "collimate/comm/world.hpp"

namespace collimate {

/// Where a rank runs.
struct RankPlace {
  int node = 0;
  std::string host;
  std::vector<int> cores;  ///< its affinity mask, ascending
  int threads = 1;
  int node_cores = 0;      ///< cores of the node that are online; 0 if unknown
  double quota = 0;        ///< cores whose time its control group may use; 0: no limit
  std::string group = {};  ///< that control group
};

/// How many ranks of the same node may run on a core of this one's, itself included.
int ranks_sharing(const std::vector<RankPlace>& places, int rank);
/// This rank's part of its control group's quota, in cores; 0: no limit.
double quota_share(const std::vector<RankPlace>& places, int rank);
/// Sets OpenMP's threads of each rank (base/threads.hpp) and returns all ranks' places. Collective.
std::vector<RankPlace> place_threads(World& world);
/// The start-up lines: ranks per node, threads per rank, the cores each rank is bound to.
std::string placement_report(const std::vector<RankPlace>& places);
/// A sentence for each group of ranks whose threads outnumber their cores, or what their control group may use of them.
std::vector<std::string> placement_warnings(const std::vector<RankPlace>& places);


/// A sentence where a launcher's variables speak of several processes, to be said where MPI knows of one rank: copies that each believe to be
/// alone. Else "". To be asked before MPI starts, which may set such variables itself; variable: std::getenv, or another one in tests.
std::string missing_ranks(const std::function<const char*(const char*)>& variable);

}  // namespace collimate
