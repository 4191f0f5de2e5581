#include "collimate/base/shape.hpp"

#include "collimate/base/dtype.hpp"
#include "collimate/base/error.hpp"

namespace collimate {

Shape::Shape(std::initializer_list<std::int64_t> extents) {
  ensure(extents.size() <= 4, "a shape has at most 4 axes, not {}", extents.size());
  for (const std::int64_t extent : extents) {
    ensure(extent >= 0, "a shape cannot have the extent {}", extent);
    extents_[rank_++] = extent;
  }
}

std::int64_t Shape::count() const {
  std::int64_t n = 1;
  for (int axis = 0; axis < rank_; ++axis) n *= extents_[axis];
  return n;
}

std::string Shape::text() const {
  std::string out = "[";
  for (int axis = 0; axis < rank_; ++axis) out += fmt::format("{}{}", axis ? ", " : "", extents_[axis]);
  return out + "]";
}

std::size_t size_of(DType type) {
  switch (type) {
    case DType::f32:
    case DType::i32: return 4;
    case DType::f64:
    case DType::i64:
    case DType::u64: return 8;
    case DType::u8: return 1;
  }
  return 0;
}

std::string_view name_of(DType type) {
  switch (type) {
    case DType::f32: return "f32";
    case DType::f64: return "f64";
    case DType::i32: return "i32";
    case DType::i64: return "i64";
    case DType::u8: return "u8";
    case DType::u64: return "u64";
  }
  return "?";
}

}  // namespace collimate
