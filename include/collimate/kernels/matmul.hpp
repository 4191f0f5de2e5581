#pragma once
#include "collimate/device/tensor.hpp"

namespace collimate::kernels {

/// Whether a product replaces its output, is formed and then added to it, or goes on where an earlier one stopped: the two are then, bit by
/// bit, one product over the terms of both, if the first one had a multiple of 256.
enum class Write { replace, add, go_on };

// Here and in the other headers: tensors are f32 where nothing else is said. Values of parameters (w, bias, gain, table) and activations
// (named where they are) are f32 or bf16, each as it is: the results have, bit by bit, the bits of the same numbers widened to f32, rounded
// to nearest even once where the output is bf16. Gradients of parameters are f32.

// Products of a linear layer. R rows must equal padded_rows(R). Every product is cut into row blocks of 256 and a fixed list
// of output tiles, one thread a tile; products over rows (dw, dbias) add block after block. So bits depend neither on the
// number of threads nor (forward) on the rows beside a row.

// x, dy, y and dx are f32 or bf16; y and dx are f32 where they are added to or go on: sums are not rounded in between.

/// y[R,N] = x[R,K] w[N,K]^T (+ bias[N] where bias is given)
void linear_forward(Tensor y, Tensor x, Tensor w, Tensor bias, Write write, Stream& stream);
/// dx[R,K] = dy[R,N] w[N,K]; the only product that may go on
void linear_backward_input(Tensor dx, Tensor dy, Tensor w, Write write, Stream& stream);
/// dw[N,K] = dy[R,N]^T x[R,K]
void linear_backward_weight(Tensor dw, Tensor dy, Tensor x, Write write, Stream& stream);
/// dbias[N] = sum of the rows of dy[R,N], block by block
void linear_backward_bias(Tensor dbias, Tensor dy, Write write, Stream& stream);
/// y[R,N] = x[R,K] w[N,K]^T (+ bias[N]) for any R: the decode kernel. A row's bits depend on that row alone (not equal to
/// linear_forward's bits).
void linear_decode(Tensor y, Tensor x, Tensor w, Tensor bias, Stream& stream);

}  // namespace collimate::kernels
