#pragma once
#include <cstdint>
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
/// Use per step: begin; for each grain of this rank { open, let the gradient be added into it, push }; finish.
class OrderedSum {
 public:
  /// Reserves buffers of `elements` floats for steps of at most `most_grains` grains over `ranks` data-parallel ranks, and
  /// scratch for the exchange. ranges: the parts of the gradient of which each rank owns owned_part(); none: all of it is one.
  /// ordered: false adds in whatever order is quickest (numerics.mode = fast). memory: where the buffers rest; streams are those of its device.
  OrderedSum(MemoryPlan& plan, const std::string& name, std::int64_t elements, std::int64_t most_grains, int ranks,
             std::vector<Part> ranges = {}, bool ordered = true, Memory memory = Memory::device);

  void begin(std::int64_t first_grain);  ///< the step's first grain of this rank; forgets the last step
  Tensor open(Stream& stream);           ///< zeros [elements] for the next grain's gradient
  void push(Stream& stream);             ///< the gradient in the open tensor is complete
  /// The sum [elements] over all `grains` of the step, valid until the next begin: ordered, each rank has what it owns (gather_shares brings
  /// the rest); otherwise every rank has everything. Collective.
  Tensor finish(Communicator& data, std::int64_t grains, Stream& stream);

  /// Buffers of `elements` floats that a rank needs: (1 + log2 grains) on one rank; up to twice that where a rank's run may
  /// start anywhere.
  static std::int64_t buffers_needed(std::int64_t most_grains, int ranks);

 private:
  struct Held {
    SumNode node;
    int buffer;
  };
  Tensor buffer(int index) const;
  int take();
  void collect(Communicator& data, std::int64_t grains, Tensor sum, Stream& stream);
  void collect(Communicator& data, const std::vector<std::vector<SumNode>>& nodes, Part range, Tensor sum, Stream& stream);
  Tensor merge(std::vector<SumNode> nodes, std::vector<Tensor> terms, Tensor sum, Stream& stream) const;

  MemoryPlan* plan_;
  std::string name_;
  std::int64_t elements_, stride_, most_grains_, scratch_elements_;
  std::int64_t buffers_;
  int ranks_;
  std::vector<Part> ranges_;
  bool ordered_;
  Slot slot_, scratch_;
  std::vector<Held> held_;
  std::vector<int> free_;
  std::int64_t next_ = 0;
  int open_ = -1;
};

}  // namespace collimate
