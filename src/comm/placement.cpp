#include "collimate/comm/placement.hpp"

#include <algorithm>
#include <set>

#include "collimate/base/threads.hpp"

namespace collimate {
namespace {

bool overlap(const RankPlace& a, const RankPlace& b) {
  if (a.node != b.node) return false;
  std::vector<int> both;
  std::set_intersection(a.cores.begin(), a.cores.end(), b.cores.begin(), b.cores.end(), std::back_inserter(both));
  return !both.empty();
}

std::string plural(std::size_t n, const char* noun) { return fmt::format("{} {}{}", n, noun, n == 1 ? "" : "s"); }

}  // namespace

int ranks_sharing(const std::vector<RankPlace>& places, int rank) {
  const auto shares = [&](const RankPlace& other) { return overlap(places[rank], other); };
  return std::max(1, static_cast<int>(std::count_if(places.begin(), places.end(), shares)));
}

std::vector<RankPlace> place_threads(World& world) {
  const std::vector<std::string> hosts = gather_all(world.ranks(), world.host());
  const std::vector<int> nodes = gather_all(world.ranks(), world.node());
  const std::vector<int> online = gather_all(world.ranks(), online_cores());
  const auto cores = gather_all(world.ranks(), bound_cores());
  std::vector<RankPlace> places;
  for (std::size_t rank = 0; rank < hosts.size(); ++rank) places.push_back({nodes[rank], hosts[rank], cores[rank], 1, online[rank]});
  const std::vector<int> threads = gather_all(world.ranks(), set_threads(ranks_sharing(places, world.rank())));
  for (std::size_t rank = 0; rank < hosts.size(); ++rank) places[rank].threads = threads[rank];
  return places;
}

std::string placement_report(const std::vector<RankPlace>& places) {
  std::set<int> nodes;
  for (const RankPlace& place : places) nodes.insert(place.node);
  std::string out = fmt::format("{} on {}\n", plural(places.size(), "rank"), plural(nodes.size(), "node"));
  for (const int node : nodes) {
    std::vector<int> ranks;
    for (std::size_t rank = 0; rank < places.size(); ++rank)
      if (places[rank].node == node) ranks.push_back(static_cast<int>(rank));
    std::set<int> used;
    for (const int rank : ranks) used.insert(places[rank].cores.begin(), places[rank].cores.end());
    const RankPlace& first = places[ranks[0]];
    // Fewer than all may be another job's share, or a launcher that binds each rank to one core.
    const std::string cores = first.node_cores ? fmt::format(" may use {} of {}", used.size(), plural(first.node_cores, "core")) : "";
    out += fmt::format("  node {} ({}): {}{}\n", node, first.host, plural(ranks.size(), "rank"), cores);
    for (std::size_t i = 0; i < ranks.size();) {  // consecutive ranks that are placed alike share a line
      const RankPlace& place = places[ranks[i]];
      std::vector<int> alike;
      for (; i < ranks.size() && places[ranks[i]].cores == place.cores && places[ranks[i]].threads == place.threads; ++i)
        alike.push_back(ranks[i]);
      out += fmt::format("    {} {}: {} on {} {}\n", alike.size() > 1 ? "ranks" : "rank", core_list(alike), plural(place.threads, "thread"),
                         place.cores.size() == 1 ? "core" : "cores", core_list(place.cores));
    }
  }
  return out;
}

std::vector<std::string> placement_warnings(const std::vector<RankPlace>& places) {
  std::vector<std::string> sentences;
  std::vector<bool> seen(places.size());
  for (std::size_t start = 0; start < places.size(); ++start) {
    if (seen[start]) continue;
    std::vector<int> group = {static_cast<int>(start)};  // all ranks linked by shared cores
    seen[start] = true;
    std::set<int> cores;
    std::size_t threads = 0;
    for (std::size_t i = 0; i < group.size(); ++i) {
      const RankPlace& place = places[group[i]];
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
                                    places[start].host, plural(threads, "thread"), group.size() > 1 ? "ranks" : "rank", core_list(group),
                                    plural(cores.size(), "core"), core_list({cores.begin(), cores.end()})));
  }
  return sentences;
}

}  // namespace collimate
