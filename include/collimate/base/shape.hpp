#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace collimate {

/// Up to four extents, row-major (the last one is contiguous). Short functions are inline: a small model's token makes hundreds of shapes.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents) {
    if (extents.size() > 4) refuse_rank(extents.size());
    for (const std::int64_t extent : extents) {
      if (extent < 0) refuse_extent(extent);
      extents_[rank_++] = extent;
    }
  }
  int rank() const { return rank_; }
  std::int64_t operator[](int axis) const { return extents_[axis]; }
  std::int64_t count() const {  ///< product of the extents; 1 for rank 0
    std::int64_t n = 1;
    for (int axis = 0; axis < rank_; ++axis) n *= extents_[axis];
    return n;
  }
  Shape with_first(std::int64_t extent) const {  ///< the same with another extent of the first axis
    Shape out = *this;
    out.extents_[0] = extent;
    return out;
  }
  bool operator==(const Shape& other) const {
    bool same = rank_ == other.rank_;
    for (int axis = 0; axis < 4; ++axis) same &= extents_[axis] == other.extents_[axis];
    return same;
  }
  std::string text() const;  ///< "[2, 3]"

 private:
  [[noreturn]] static void refuse_rank(std::size_t axes);
  [[noreturn]] static void refuse_extent(std::int64_t extent);

  std::array<std::int64_t, 4> extents_{};
  int rank_ = 0;
};

}  // namespace collimate
