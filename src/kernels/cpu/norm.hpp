#pragma once
#include <cstdint>

#include "kernels/cpu/numbers.hpp"

namespace collimate::kernels::cpu {

/// A normalisation of rows; without mean and bias it is RMS norm.
struct NormForward {
  Results y;
  float* mean;  ///< null: RMS norm
  float* rstd;
  const float* x;
  Numbers gain;
  Numbers bias;  ///< null: RMS norm
  float eps;
};
void norm_forward(const NormForward& norm, std::int64_t rows, std::int64_t columns);

struct NormBackward {
  float* dx;
  float* dgain;
  float* dbias;  ///< null: RMS norm
  const float* dy;
  const float* x;
  Numbers gain;
  const float* mean;  ///< null: RMS norm
  const float* rstd;
  bool add_dx, add_parameters;
};
void norm_backward(const NormBackward& norm, std::int64_t rows, std::int64_t columns);

}  // namespace collimate::kernels::cpu
