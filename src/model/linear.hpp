#pragma once
#include "collimate/kernels/matmul.hpp"
#include "collimate/params/store.hpp"

namespace collimate {

/// dw = dy^T x; nothing where the parameters are frozen.
inline void backward_weight(const Lease& lease, const View& weight, Tensor dy, Tensor x, Stream& stream) {
  if (lease.gradient) kernels::linear_backward_weight(lease.gradient_at(weight), dy, x, kernels::Write::replace, stream);
}

/// dbias = the sum of the rows of dy; nothing where the parameters are frozen.
inline void backward_bias(const Lease& lease, const View& bias, Tensor dy, Stream& stream) {
  if (lease.gradient) kernels::linear_backward_bias(lease.gradient_at(bias), dy, kernels::Write::replace, stream);
}

}  // namespace collimate
