#include "collimate/comm/rank_cores.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "collimate/base/control_group.hpp"
#include "collimate/base/text.hpp"
#include "collimate/base/threads.hpp"

namespace collimate {
namespace {

bool overlap(const RankCores& a, const RankCores& b) {
  if (a.node != b.node) return false;
  std::vector<int> both;
  std::set_intersection(a.cores.begin(), a.cores.end(), b.cores.begin(), b.cores.end(), std::back_inserter(both));
  return !both.empty();
}

bool same_cores(const RankCores& a, const RankCores& b) {
  return a.cores == b.cores && a.threads == b.threads && a.quota == b.quota && a.group == b.group;
}

std::string cores_text(double cores) { return fmt::format("{:.4g} {}", cores, cores == 1 ? "core" : "cores"); }

}  // namespace

int ranks_sharing(const std::vector<RankCores>& places, int rank) {
  const auto shares = [&](const RankCores& other) { return overlap(places[rank], other); };
  return std::max(1, static_cast<int>(std::count_if(places.begin(), places.end(), shares)));
}

double quota_share(const std::vector<RankCores>& places, int rank) {
  const RankCores& own = places[rank];
  const auto together = [&](const RankCores& other) { return other.node == own.node && other.group == own.group; };
  return own.quota / static_cast<double>(std::count_if(places.begin(), places.end(), together));
}

std::vector<RankCores> share_cores(World& world) {
  const std::vector<std::string> hosts = gather_all(world.ranks(), world.host());
  const std::vector<int> nodes = gather_all(world.ranks(), world.node());
  const std::vector<int> online = gather_all(world.ranks(), online_cores());
  const auto cores = gather_all(world.ranks(), bound_cores());
  const CpuQuota mine = cpu_quota().value_or(CpuQuota{});
  const std::vector<double> quotas = gather_all(world.ranks(), mine.cores);
  const std::vector<std::string> groups = gather_all(world.ranks(), mine.group);
  std::vector<RankCores> places;
  for (std::size_t rank = 0; rank < hosts.size(); ++rank)
    places.push_back({nodes[rank], hosts[rank], cores[rank], 1, online[rank], quotas[rank], groups[rank]});
  const std::vector<int> threads =
      gather_all(world.ranks(), set_threads(ranks_sharing(places, world.rank()), quota_share(places, world.rank())));
  for (std::size_t rank = 0; rank < hosts.size(); ++rank) places[rank].threads = threads[rank];
  return places;
}

std::string cores_report(const std::vector<RankCores>& places) {
  std::set<int> nodes;
  for (const RankCores& place : places) nodes.insert(place.node);
  std::string out = fmt::format("{} on {}\n", counted(places.size(), "rank"), counted(nodes.size(), "node"));
  for (const int node : nodes) {
    std::vector<int> ranks;
    for (std::size_t rank = 0; rank < places.size(); ++rank)
      if (places[rank].node == node) ranks.push_back(static_cast<int>(rank));
    std::set<int> used;
    for (const int rank : ranks) used.insert(places[rank].cores.begin(), places[rank].cores.end());
    const RankCores& first = places[ranks[0]];
    // Fewer than all may be another job's share, or a launcher that binds each rank to one core.
    const std::string cores = first.node_cores ? fmt::format(" may use {} of {}", used.size(), counted(first.node_cores, "core")) : "";
    out += fmt::format("  node {} ({}): {}{}\n", node, first.host, counted(ranks.size(), "rank"), cores);
    for (std::size_t i = 0; i < ranks.size();) {  // consecutive ranks that are placed alike share a line
      const RankCores& place = places[ranks[i]];
      std::vector<int> alike;
      for (; i < ranks.size() && same_cores(places[ranks[i]], place); ++i) alike.push_back(ranks[i]);
      const std::string quota =
          place.quota > 0 ? fmt::format("; the CPU quota of the control group {} is {}", place.group, cores_text(place.quota)) : "";
      out += fmt::format("    {} {}: {} on {} {}{}\n", alike.size() > 1 ? "ranks" : "rank", core_list(alike),
                         counted(place.threads, "thread"), place.cores.size() == 1 ? "core" : "cores", core_list(place.cores), quota);
    }
  }
  return out;
}

std::vector<std::string> cores_warnings(const std::vector<RankCores>& places) {
  std::vector<std::string> sentences;
  std::vector<bool> seen(places.size());
  for (std::size_t start = 0; start < places.size(); ++start) {
    if (seen[start]) continue;
    std::vector<int> group = {static_cast<int>(start)};  // all ranks linked by shared cores
    seen[start] = true;
    std::set<int> cores;
    std::size_t threads = 0;
    for (std::size_t i = 0; i < group.size(); ++i) {
      const RankCores& place = places[group[i]];
      cores.insert(place.cores.begin(), place.cores.end());
      threads += static_cast<std::size_t>(place.threads);
      for (std::size_t other = start; other < places.size(); ++other)
        if (!seen[other] && overlap(place, places[other])) {
          seen[other] = true;
          group.push_back(static_cast<int>(other));
        }
    }
    if (threads <= cores.size()) continue;
    std::sort(group.begin(), group.end());
    sentences.push_back(fmt::format("on {} the {} of {} {} share {} ({}): set OMP_NUM_THREADS lower, start fewer ranks, or bind them apart",
                                    places[start].host, counted(threads, "thread"), group.size() > 1 ? "ranks" : "rank", core_list(group),
                                    counted(cores.size(), "core"), core_list({cores.begin(), cores.end()})));
  }
  std::map<std::pair<int, std::string>, std::vector<int>> limited;  // ranks by node and control group
  for (std::size_t rank = 0; rank < places.size(); ++rank)
    if (places[rank].quota > 0) limited[{places[rank].node, places[rank].group}].push_back(static_cast<int>(rank));
  for (const auto& [where, ranks] : limited) {
    const RankCores& first = places[ranks[0]];
    std::size_t threads = 0;
    for (const int rank : ranks) threads += static_cast<std::size_t>(places[rank].threads);
    if (static_cast<double>(threads) > std::max(1.0, first.quota))
      sentences.push_back(fmt::format("on {} the {} of {} {} may use the time of {} together (CPU quota of the control group {}): they will "
                                      "be held up, so ask for more cores, set OMP_NUM_THREADS lower, or start fewer ranks",
                                      first.host, counted(threads, "thread"), ranks.size() > 1 ? "ranks" : "rank", core_list(ranks),
                                      cores_text(first.quota), where.second));
  }
  return sentences;
}

}  // namespace collimate
