#pragma once
#include "collimate/collectives/ordered_sum.hpp"

namespace collimate {

/// Sums gradients of grains into shards (ZeRO 2 and 3), in the order of OrderedSum and so with its bits: in micro-step j rank r computes
/// grain j * d + r, and the owner of a shard pushes the d pieces in grain order onto a binary counter.
///
/// Use per step: begin; in each micro-step, for each range of the gradient: add(range, this rank's gradient of it); finish.
class ShardedSum {
 public:
  /// A range of the flat gradient, of which each rank owns owned_part().
  struct Range {
    std::int64_t size = 0, owned_offset = 0;
  };
  /// Reserves levels of the sum's size (1 + log2 grains), and room for the d pieces of the largest range.
  ShardedSum(MemoryPlan& plan, const std::string& name, std::vector<Range> ranges, std::int64_t most_grains, int rank, int ranks,
             bool ordered = true, Memory memory = Memory::device);

  void begin();
  /// One micro-step's gradients of one range: `gradient` [size], or nothing where this rank had no grain; `present` grains were computed by
  /// the ranks [0, present). `gradient` is overwritten. Collective.
  void add(int range, Tensor gradient, int present, Communicator& data, Stream& stream);
  /// The sum of this rank's shares [owned elements]; valid until the next begin.
  Tensor finish(Stream& stream);
  std::int64_t offset(int range) const { return ranges_[range].owned_offset; }  ///< of this rank's share, in the sum

 private:
  Tensor level(std::size_t index, int range) const;
  void push(int range, Tensor leaf, Stream& stream);
  MemoryPlan* plan_;
  std::string name_;
  std::vector<Range> ranges_;
  std::int64_t elements_ = 0, most_grains_, levels_, scratch_elements_ = 0;
  int rank_, ranks_;
  bool ordered_;
  Slot slot_, scratch_;
  std::vector<std::int64_t> counts_;  // grains pushed, of each range
};

}  // namespace collimate
