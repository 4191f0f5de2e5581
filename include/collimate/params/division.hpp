#pragma once
#include <functional>

#include "collimate/comm/process_grid.hpp"

namespace collimate {

/// What of a model's numbers each data-parallel rank holds: its share (true) or everything (false). The ZeRO stages are the rows of a
/// table (Rajbhandari et al., 2020).
struct Placement {
  bool moments = false, gradients = false, values = false;
};
constexpr Placement placements[] = {{false, false, false}, {true, false, false}, {true, true, false}, {true, true, true}};

/// How much of a model rests on the host, by bytes, in whole units, the last ones in the order of use: 0 nothing, 1 everything. Values on the host
/// are brought unit by unit as they are used. A state on the host (moments, sums of gradients and, where values rest on the device, the masters
/// that are stepped) is stepped there; it is no smaller than that of the values.
struct HostShares {
  double values = 0, state = 0;
};

/// How a model is divided over the ranks of a grid. None of it but `shards` changes a number (numerics contract).
struct Division {
  const ProcessGrid* grid = nullptr;  ///< null: one rank
  int shards = 1;       ///< V, virtual shards of each layer; grid.tensor divides it
  int zero = 0;         ///< ZeRO stage: a row of `placements`
  bool ordered = true;  ///< false: numerics.mode = fast, sums in whatever order is quickest
  HostShares host = {};
  bool pending = true;  ///< what rests on the host is stepped when it is fetched next; false: at once

  const Placement& placement() const { return placements[ranks(Axis::data) == 1 ? 0 : zero]; }  ///< one replica shares with nobody
  Communicator& along(Axis axis) const;
  void agree(const std::function<void()>& step) const;  ///< agree_on over all ranks of the grid
  int ranks(Axis axis) const { return grid ? grid->shape().along(axis) : 1; }
  int rank(Axis axis) const { return grid ? grid->coord().along(axis) : 0; }
  /// The shards of each layer that this rank computes.
  Part held_shards() const { return part_of(shards, rank(Axis::tensor), ranks(Axis::tensor)); }
  int stage() const { return rank(Axis::pipeline); }
  int stages() const { return ranks(Axis::pipeline); }
  bool first_stage() const { return stage() == 0; }
  bool last_stage() const { return stage() == stages() - 1; }

  /// Whether a rank computes a grain without asking another for anything.
  bool computes_alone() const {
    return ranks(Axis::tensor) == 1 && stages() == 1 && (ranks(Axis::data) == 1 || !placement().gradients);
  }

  /// The grains of a step (or of a scoring) that this rank's replica computes, in order: a contiguous run, or with sharded gradients every
  /// d-th one, one in each micro-step; -1 where it has none in a micro-step that others have.
  std::vector<std::int64_t> grains(std::int64_t total) const { return grains_of(rank(Axis::data), total); }
  std::vector<std::int64_t> grains_of(int replica, std::int64_t total) const;  ///< of any replica
};

}  // namespace collimate
