#include "data/bpe_merges.hpp"

#include <algorithm>
#include <bit>
#include <limits>

#include "collimate/base/error.hpp"

namespace collimate {
namespace {

std::uint64_t key_of(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

bool later(const MergeTable::Scratch::Candidate& a, const MergeTable::Scratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
}

}  // namespace

MergeTable::MergeTable(std::size_t expected) {
  const std::size_t slots = std::bit_ceil(std::max<std::size_t>(16, 2 * expected + 2));
  slots_.resize(slots);
  shift_ = 64 - std::countr_zero(slots);
}

std::size_t MergeTable::slot_of(std::uint64_t key) const {
  std::size_t slot = (key * 0x9E3779B97F4A7C15ull) >> shift_;
  while (slots_[slot].key != key && slots_[slot].key != ~0ull) slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

void MergeTable::grow() {
  MergeTable larger(slots_.size());
  for (const Slot& slot : slots_)
    if (slot.key != ~0ull) larger.slots_[larger.slot_of(slot.key)] = slot;
  larger.count_ = count_;
  *this = std::move(larger);
}

void MergeTable::insert(std::int32_t left, std::int32_t right, Merge merge) {
  const std::uint64_t key = key_of(left, right);
  Slot& slot = slots_[slot_of(key)];
  count_ += slot.key != key;
  slot = {key, merge};
  if (2 * count_ > slots_.size()) grow();
}

const MergeTable::Merge* MergeTable::find(std::int32_t left, std::int32_t right) const {
  const Slot& slot = slots_[slot_of(key_of(left, right))];
  return slot.key == ~0ull ? nullptr : &slot.merge;
}

void MergeTable::apply(std::vector<std::int32_t>& symbols, Scratch& scratch) const {
  if (symbols.size() < 2) return;
  require(symbols.size() < static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()),
          "a text of {} symbols without a break is too long to tokenize: cut it into pieces below 2 GiB", symbols.size());
  const auto n = static_cast<std::int32_t>(symbols.size());
  auto& [heap, previous, next] = scratch;
  heap.clear();
  const auto candidate = [&](std::int32_t at, std::int32_t after) {
    const Merge* merge = find(symbols[at], symbols[after]);
    if (!merge) return false;
    heap.push_back({merge->rank, at, symbols[at], symbols[after], merge->id});
    return true;
  };
  for (std::int32_t i = 0; i + 1 < n; ++i) candidate(i, i + 1);
  if (heap.empty()) return;
  std::make_heap(heap.begin(), heap.end(), later);
  previous.resize(n);
  next.resize(n);
  for (std::int32_t i = 0; i < n; ++i) previous[i] = i - 1, next[i] = i + 1 < n ? i + 1 : -1;

  // A candidate is stale where one of its symbols has since been merged away (-1) or changed.
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Scratch::Candidate best = heap.back();
    heap.pop_back();
    const std::int32_t at = best.position, gone = next[at];
    if (symbols[at] != best.left || gone < 0 || symbols[gone] != best.right) continue;
    symbols[at] = best.id;
    symbols[gone] = -1;
    next[at] = next[gone];
    if (next[at] >= 0) previous[next[at]] = at;
    if (previous[at] >= 0 && candidate(previous[at], at)) std::push_heap(heap.begin(), heap.end(), later);
    if (next[at] >= 0 && candidate(at, next[at])) std::push_heap(heap.begin(), heap.end(), later);
  }
  std::erase(symbols, -1);
}

}  // namespace collimate
