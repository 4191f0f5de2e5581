#pragma once
#include <cstdint>
#include <vector>

namespace collimate {

/// Which two neighbouring symbols may become one, and in which order: the lowest rank first, of equal ranks the leftmost.
class MergeTable {
 public:
  struct Merge {
    std::int32_t rank, id;
  };
  /// Room that apply() needs; keep it between calls so that short words allocate nothing.
  struct Scratch {
    struct Candidate {
      std::int32_t rank, position, left, right, id;
    };
    std::vector<Candidate> heap;
    std::vector<std::int32_t> previous, next;
  };

  explicit MergeTable(std::size_t expected = 0);
  void insert(std::int32_t left, std::int32_t right, Merge merge);  ///< a later entry of the same pair replaces it
  const Merge* find(std::int32_t left, std::int32_t right) const;   ///< null for none
  void apply(std::vector<std::int32_t>& symbols, Scratch& scratch) const;

 private:
  // Open addressing with linear probing, at most half full; ids are never negative, so ~0 marks an empty slot.
  struct Slot {
    std::uint64_t key = ~0ull;
    Merge merge{};
  };
  std::size_t slot_of(std::uint64_t key) const;
  void grow();

  std::vector<Slot> slots_;
  std::size_t count_ = 0;
  int shift_ = 0;
};

}  // namespace collimate
