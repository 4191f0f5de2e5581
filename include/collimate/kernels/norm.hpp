#pragma once
#include "collimate/device/tensor.hpp"
#include "collimate/kernels/matmul.hpp"

namespace collimate::kernels {

// gain, bias and y are f32 or bf16, all other tensors f32.

/// y[R,C] = x * rstd * gain[C], rstd[R] = 1/sqrt(mean(x^2) + eps)
void rms_norm_forward(Tensor y, Tensor rstd, Tensor x, Tensor gain, float eps, Stream& stream);
/// dx[R,C] and dgain[C] (none: not computed), each replaced or added to; column sums block by block, going on from what is added to
void rms_norm_backward(Tensor dx, Tensor dgain, Tensor dy, Tensor x, Tensor gain, Tensor rstd, Write write_dx, Write write_dgain,
                       Stream& stream);

/// y[R,C] = (x - mean) * rstd * gain[C] + bias[C], rstd[R] = 1/sqrt(biased variance + eps)
void layer_norm_forward(Tensor y, Tensor mean, Tensor rstd, Tensor x, Tensor gain, Tensor bias, float eps, Stream& stream);
/// dx[R,C], dgain[C] and dbias[C] (both or none of these), each replaced or added to
void layer_norm_backward(Tensor dx, Tensor dgain, Tensor dbias, Tensor dy, Tensor x, Tensor gain, Tensor mean, Tensor rstd, Write write_dx,
                         Write write_parameters, Stream& stream);

}  // namespace collimate::kernels
