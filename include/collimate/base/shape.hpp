#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace collimate {

/// Up to four extents, row-major (the last one is contiguous).
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents);
  int rank() const { return rank_; }
  std::int64_t operator[](int axis) const { return extents_[axis]; }
  std::int64_t count() const;  ///< product of the extents; 1 for rank 0
  bool operator==(const Shape&) const = default;
  std::string text() const;  ///< "[2, 3]"

 private:
  std::array<std::int64_t, 4> extents_{};
  int rank_ = 0;
};

}  // namespace collimate
