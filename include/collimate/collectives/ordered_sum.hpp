#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "collimate/comm/communicator.hpp"
#include "collimate/device/memory_plan.hpp"

namespace collimate {

/// A node of the tree of sums: the grains [first, first + 2^level); first is a multiple of 2^level.
struct SumNode {
  std::int64_t first = 0;
  int level = 0;
  bool operator==(const SumNode&) const = default;
};

/// What is left of a run of grains when all neighbours that form a node have merged: its largest aligned pieces, in order.
std::vector<SumNode> nodes_of(Part run);

/// Sums gradients of grains in an order that no number of ranks can change (numerics contract R3).
///
/// Grain gradients are the leaves of a binary tree over the global grain index: node (s, l) and (s + 2^l, l) form (s, l + 1), older
/// plus newer, where s is a multiple of 2^(l+1); what is left at the end of the step folds from the right. Each data-parallel rank
/// computes the contiguous run part_of(grains, rank, ranks) and keeps its nodes; `finish` brings the nodes of each shard to its
/// owner and merges them by the same rule. The result is bit-equal to one rank's pushing of all grains, for any
/// number of grains, also 0, and any number of ranks, also ones without a grain.
///
/// The gradient comes in ranges. The grains of a step come in groups: those of a group are pushed one after the other for one range, then for
/// the next. So only what is left of a range at the end of a group needs memory that lasts; all else lies in a room that ranges share.
///
/// Use per step: begin; for each group, for each range, for each grain of the group { open, let the gradient be added into it, push }; finish.
class OrderedSum {
 public:
  struct Steps {
    std::int64_t most_grains = 0;  ///< of a step, over all ranks
    int ranks = 1;                 ///< data-parallel
    std::int64_t group = 1;        ///< most grains of a group, a power of two
    bool ordered = true;           ///< false adds in whatever order is quickest (numerics.mode = fast)
    Memory memory = Memory::device;  ///< where the sum rests
    std::int64_t run() const;      ///< most grains of a rank
  };
  /// Buffer [elements of the range] number `buffer` of the room, on the device or (host) beside it. Ranges that are pushed at once must have
  /// rooms that do not overlap.
  using Room = std::function<Tensor(int range, int buffer, bool host)>;
  /// Reserves buffers for the ranges, which are parts of the flat gradient, of each of which each rank owns owned_part(); and scratch for the
  /// exchange.
  OrderedSum(MemoryPlan& plan, const std::string& name, std::vector<Part> ranges, const Steps& steps, Room room);

  void begin(Part run);  ///< the step's grains of this rank; forgets the last step
  /// Zeros for the next grain's gradient of a range, on the device; at_rest: in the memory where the sum rests.
  Tensor open(int range, bool at_rest = false);
  void push(int range);  ///< the gradient in the open tensor is complete
  /// The sum [elements] over all `grains` of the step, valid until the next begin: ordered, each rank has what it owns (gather_shares brings
  /// the rest); otherwise every rank has everything. Collective.
  Tensor finish(Communicator& data, std::int64_t grains);
  const Part& part(int range) const { return ranges_[range].part; }  ///< in the flat gradient
  bool opened(int range) const { return ranges_[range].open.has_value(); }

  /// Buffers that last, of all elements.
  static std::int64_t buffers_needed(const Steps& steps);
  /// Buffers of the room, each of one range.
  static std::int64_t room_needed(const Steps& steps);

 private:
  /// Where a node or an open gradient lies.
  struct Place {
    bool host = false;     // beside the device
    bool lasting = false;  // in the buffers; else in the room
    int buffer = 0;
  };
  struct Held {
    SumNode node;
    Place place;
  };
  struct Range {
    Part part;
    std::int64_t next = 0;
    std::vector<Held> held;
    std::optional<Place> open;
    std::vector<int> free_buffers, free_room[2];  // on the device, on the host
  };
  Tensor buffer(int index) const;
  Tensor at(int range, const Place& place) const;
  Place take(Range& range, bool host, bool lasting);
  void release(Range& range, const Place& place);
  void join(int range);
  Place move(int range, const Place& from, bool lasting);
  void await_spills();
  void close_group(int range);
  void mark_lasting();
  void collect(Communicator& data, std::int64_t grains, Tensor sum);
  void collect(Communicator& data, const std::vector<std::vector<SumNode>>& nodes, int range, Tensor sum);
  void merge(std::vector<SumNode> nodes, std::vector<Tensor> terms, Tensor sum) const;
  Stream& stream(bool host) const { return host ? plan_->device().host().stream() : plan_->device().stream(); }

  MemoryPlan* plan_;
  std::string name_;
  Steps steps_;
  bool on_host_;  // where it rests
  std::int64_t elements_ = 0, stride_, buffers_, room_buffers_, scratch_elements_ = 0;
  Room room_;
  Slot slot_, scratch_;
  std::vector<Range> ranges_;
  Part run_;
  std::vector<bool> lasts_;  // of each grain of the run: a node that begins there outlives its group
  std::optional<Event> spilled_;  // the last copy from the device to where the sum rests
};

}  // namespace collimate
