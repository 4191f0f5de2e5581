#include "collimate/base/shape.hpp"

#include "collimate/base/dtype.hpp"
#include "collimate/base/error.hpp"

namespace collimate {

void Shape::refuse_rank(std::size_t axes) { fail_with(ExitCode::failure, "a shape has at most 4 axes, not {}", axes); }

void Shape::refuse_extent(std::int64_t extent) { fail_with(ExitCode::failure, "a shape cannot have the extent {}", extent); }

std::string Shape::text() const {
  std::string out = "[";
  for (int axis = 0; axis < rank_; ++axis) out += fmt::format("{}{}", axis ? ", " : "", extents_[axis]);
  return out + "]";
}

std::string_view name_of(DType type) {
  switch (type) {
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::f64: return "f64";
    case DType::i32: return "i32";
    case DType::i64: return "i64";
    case DType::u8: return "u8";
    case DType::u64: return "u64";
  }
  return "?";
}

}  // namespace collimate
