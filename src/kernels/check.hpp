#pragma once
#include <string>
#include <string_view>

#include "collimate/base/error.hpp"
#include "collimate/device/tensor.hpp"

namespace collimate::kernels {

/// The types that an operand may have.
struct Types {
  DType first, second;
  constexpr Types(DType only) : first(only), second(only) {}  // NOLINT: one type is such a set
  constexpr Types(DType first, DType second) : first(first), second(second) {}
  constexpr bool hold(DType type) const { return type == first || type == second; }
  std::string text() const {
    return first == second ? std::string(name_of(first)) : fmt::format("{} or {}", name_of(first), name_of(second));
  }
};
constexpr Types f32_or_bf16{DType::f32, DType::bf16};

/// Refuses, in one sentence, a tensor that is not `shape` of one of the `types`. Words are made only for a refusal: a small model's token
/// takes some 60 checks, and their text would take longer than its arithmetic.
inline void check(std::string_view operation, std::string_view name, const Tensor& tensor, const Shape& shape, Types types = DType::f32) {
  if (tensor.shape() == shape && types.hold(tensor.dtype()) && (tensor.data() || shape.count() == 0)) return;
  require(tensor.shape() == shape && types.hold(tensor.dtype()), "{} needs {} to be {} {}, and it is {} {}", operation, name, types.text(),
          shape.text(), name_of(tensor.dtype()), tensor.shape().text());
  fail("{} was given no memory for {} {}", operation, name, shape.text());
}

/// Refuses a tensor that does not have `rank` axes; the extents are then read from it.
inline void check_rank(std::string_view operation, std::string_view name, const Tensor& tensor, int rank, Types types = DType::f32) {
  if (tensor.shape().rank() == rank && types.hold(tensor.dtype()) && (tensor.data() || tensor.count() == 0)) return;
  require(tensor.shape().rank() == rank && types.hold(tensor.dtype()), "{} needs {} to be {} with {} axes, and it is {} {}", operation,
          name, types.text(), rank, name_of(tensor.dtype()), tensor.shape().text());
  fail("{} was given no memory for {} {}", operation, name, tensor.shape().text());
}

}  // namespace collimate::kernels
