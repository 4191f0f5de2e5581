#pragma once
#include <string>
#include <vector>

#include "collimate/comm/world.hpp"

namespace collimate {

/// Where a rank runs, and the cores that it may use.
struct RankCores {
  int node = 0;
  std::string host;
  std::vector<int> cores;  ///< its affinity mask, ascending
  int threads = 1;
  int node_cores = 0;      ///< cores of the node that are online; 0 if unknown
  double quota = 0;        ///< cores whose time its control group may use; 0: no limit
  std::string group = {};  ///< that control group
};

/// How many ranks of the same node may run on a core of this one's, itself included.
int ranks_sharing(const std::vector<RankCores>& places, int rank);
/// This rank's part of its control group's quota, in cores; 0: no limit.
double quota_share(const std::vector<RankCores>& places, int rank);
/// Sets OpenMP's threads of each rank (base/threads.hpp) and returns the cores of all ranks. Collective.
std::vector<RankCores> share_cores(World& world);
/// The start-up lines: ranks per node, threads per rank, the cores each rank is bound to.
std::string cores_report(const std::vector<RankCores>& places);
/// A sentence for each group of ranks whose threads outnumber their cores, or what their control group may use of them.
std::vector<std::string> cores_warnings(const std::vector<RankCores>& places);

}  // namespace collimate
