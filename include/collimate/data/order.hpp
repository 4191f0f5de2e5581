#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace collimate {

/// Where index i of [0, n) stands in the permutation of (seed, epoch), found in constant time and memory: a Feistel network
/// (Luby and Rackoff, 1988) with Philox as its round function, walked until it falls into [0, n).
std::int64_t permuted(std::int64_t i, std::int64_t n, std::uint64_t seed, std::uint32_t epoch);

/// The next `count` samples of a dataset of n. A cursor is the number of samples taken so far over all epochs, so it is all that a
/// restart needs. Each epoch is a permutation that depends on (seed, epoch) only; without shuffling it is 0, 1, 2, ...
std::vector<std::int64_t> take(std::int64_t n, std::uint64_t seed, std::int64_t cursor, std::int64_t count, bool shuffle = true);

/// Two disjoint parts of [0, n), each in ascending order.
struct HeldOutSplit {
  std::vector<std::int64_t> train, held_out;
};
/// Splits samples that hold so many records each: holds out samples, in an order of the seed alone, as many as fit into
/// round(fraction * all records). Throws unless 0 <= fraction < 1 and both parts hold some, or the fraction is 0.
HeldOutSplit split_held_out(std::span<const std::int32_t> records, double fraction, std::uint64_t seed);

}  // namespace collimate
