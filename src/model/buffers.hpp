#pragma once
#include "collimate/device/tensor.hpp"

namespace collimate {

/// The first rows * columns elements of a flat buffer, as a matrix.
inline Tensor matrix_in(const Tensor& buffer, std::int64_t rows, std::int64_t columns) {
  return buffer.slice(0, rows * columns).reshape({rows, columns});
}

}  // namespace collimate
