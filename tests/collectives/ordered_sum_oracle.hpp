#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

namespace collimate {

/// Element i of grain g's gradient: magnitudes over 2^16 and both signs, so that float sums depend on their order.
inline float gradient_of(std::int64_t grain, std::int64_t i) {
  const auto h = static_cast<std::uint32_t>(grain + 1) * 2654435761u ^ static_cast<std::uint32_t>(i + 7) * 2246822519u;
  return std::ldexp(static_cast<float>(h % 65521) - 32760.0f, static_cast<int>(h >> 28) - 8);
}

/// A whole node by recursion: older half plus newer half.
inline float node_sum(std::int64_t first, std::int64_t count, std::int64_t i) {
  return count == 1 ? gradient_of(first, i) : node_sum(first, count / 2, i) + node_sum(first + count / 2, count / 2, i);
}

/// The contract's sum of grains [first, grains), by brute force: the largest node that starts at `first` and fits, plus the rest.
inline float ordered_sum_oracle(std::int64_t grains, std::int64_t i, std::int64_t first = 0) {
  if (grains == 0) return 0.0f;
  std::int64_t size = 1;
  while (first % (size * 2) == 0 && first + size * 2 <= grains) size *= 2;
  const float node = node_sum(first, size, i);
  return first + size == grains ? node : node + ordered_sum_oracle(grains, i, first + size);
}

}  // namespace collimate
