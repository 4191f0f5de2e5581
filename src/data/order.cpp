#include "collimate/data/order.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "collimate/base/error.hpp"
#include "collimate/base/random.hpp"

namespace collimate {
namespace {

constexpr int rounds = 8;
constexpr int least_bits = 4;  ///< of each half: fewer would not mix a small dataset well
constexpr std::uint32_t split_epoch = 0xFFFFFFFF;  ///< an epoch that no run reaches

}  // namespace

std::int64_t permuted(std::int64_t i, std::int64_t n, std::uint64_t seed, std::uint32_t epoch) {
  ensure(0 <= i && i < n && n <= std::int64_t{1} << 62, "index {} is not below {}", i, n);
  const RandomKey key(seed, Purpose::data_order);
  const int half = std::max(least_bits, (static_cast<int>(std::bit_width(static_cast<std::uint64_t>(n - 1))) + 1) / 2);
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  auto at = static_cast<std::uint64_t>(i);
  do {
    std::uint64_t left = at >> half, right = at & mask;
    for (std::uint32_t round = 0; round < rounds; ++round) {
      const std::uint64_t mixed = left ^ (key.words(right, epoch, round)[0] & mask);
      left = right;
      right = mixed;
    }
    at = left << half | right;
  } while (at >= static_cast<std::uint64_t>(n));
  return static_cast<std::int64_t>(at);
}

std::vector<std::int64_t> take(std::int64_t n, std::uint64_t seed, std::int64_t cursor, std::int64_t count, bool shuffle) {
  require(n > 0, "samples were asked of a dataset that holds none");
  ensure(cursor >= 0 && count >= 0, "cursor {} and count {} cannot be negative", cursor, count);
  std::vector<std::int64_t> samples(static_cast<std::size_t>(count));
  for (std::int64_t& sample : samples) {
    sample = shuffle ? permuted(cursor % n, n, seed, static_cast<std::uint32_t>(cursor / n)) : cursor % n;
    ++cursor;
  }
  return samples;
}

HeldOutSplit split_held_out(std::span<const std::int32_t> records, double fraction, std::uint64_t seed) {
  require(fraction >= 0 && fraction < 1, "the held-out fraction {} must be at least 0 and below 1", fraction);
  const auto n = static_cast<std::int64_t>(records.size());
  const std::int64_t all = std::accumulate(records.begin(), records.end(), std::int64_t{0}),
                     wanted = std::llround(static_cast<double>(all) * fraction);
  std::vector<bool> out(records.size());
  std::int64_t groups = 0;
  for (std::int64_t i = 0, held = 0; i < n && held < wanted; ++i) {
    const auto next = static_cast<std::size_t>(permuted(i, n, seed, split_epoch));
    if (held + records[next] > wanted) continue;
    held += records[next];
    out[next] = true;
    ++groups;
  }
  require(n == 0 || fraction == 0 || (groups > 0 && groups < n),
          "a held-out share of {} is {} of {} samples, which leaves none to {}; give another share, or more samples", fraction, groups, n,
          groups > 0 ? "learn from" : "hold out");
  HeldOutSplit split;
  for (std::int64_t i = 0; i < n; ++i) (out[static_cast<std::size_t>(i)] ? split.held_out : split.train).push_back(i);
  return split;
}

}  // namespace collimate
