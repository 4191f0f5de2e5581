#pragma once
#include <string_view>

#include "collimate/base/error.hpp"
#include "collimate/device/tensor.hpp"

namespace collimate::kernels {

/// Refuses, in one sentence, a tensor that is not `shape` of `dtype`. Words are made only for a refusal: a small model's token
/// takes some 60 checks, and their text would take longer than its arithmetic.
inline void check(std::string_view operation, std::string_view name, const Tensor& tensor, const Shape& shape, DType dtype = DType::f32) {
  if (tensor.shape() == shape && tensor.dtype() == dtype && (tensor.data() || shape.count() == 0)) return;
  require(tensor.shape() == shape && tensor.dtype() == dtype, "{} needs {} to be {} {}, and it is {} {}", operation, name, name_of(dtype),
          shape.text(), name_of(tensor.dtype()), tensor.shape().text());
  fail("{} was given no memory for {} {}", operation, name, shape.text());
}

/// Refuses a tensor that does not have `rank` axes; the extents are then read from it.
inline void check_rank(std::string_view operation, std::string_view name, const Tensor& tensor, int rank, DType dtype = DType::f32) {
  if (tensor.shape().rank() == rank && tensor.dtype() == dtype && (tensor.data() || tensor.count() == 0)) return;
  require(tensor.shape().rank() == rank && tensor.dtype() == dtype, "{} needs {} to be {} with {} axes, and it is {} {}", operation, name,
          name_of(dtype), rank, name_of(tensor.dtype()), tensor.shape().text());
  fail("{} was given no memory for {} {}", operation, name, tensor.shape().text());
}

}  // namespace collimate::kernels
