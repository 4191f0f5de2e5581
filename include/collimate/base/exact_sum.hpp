#pragma once
#include <array>
#include <cstdint>
#include <span>

namespace collimate {

/// Sums numbers >= 0 without any rounding until the end, so that the result depends on no order and no division over ranks: a fixed-point
/// number wide enough for every fp64, in limbs of 32 bits that do not carry (Kulisch's accumulator). At most 2^30 numbers.
class ExactSum {
 public:
  void add(double x);
  double value() const;  ///< the sum, rounded towards zero; NaN where a term was not finite
  /// The limbs: sums of several accumulators are sums of their limbs.
  std::span<std::int64_t> limbs() { return limbs_; }

 private:
  std::array<std::int64_t, 69> limbs_{};  // 67 of the number, one for its last carry, one that counts what is not finite
};

}  // namespace collimate
