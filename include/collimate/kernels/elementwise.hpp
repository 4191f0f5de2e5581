#pragma once
#include "collimate/base/random.hpp"
#include "collimate/device/tensor.hpp"

namespace collimate::kernels {

/// to = from, element by element, from f32 to bf16 (rounded to nearest even) or from bf16 to f32 (exactly). Any equal shapes; they share
/// no memory.
void cast(Tensor to, Tensor from, Stream& stream);

/// y = a + b, element by element; y may be a or b. Any equal shapes; f32, or i32, which wraps around.
void add(Tensor y, Tensor a, Tensor b, Stream& stream);

/// y[R,N] += bias[N] in every row; bias f32 or bf16.
void add_bias(Tensor y, Tensor bias, Stream& stream);

/// Columns [y_first, y_first + columns) of y[R,.] become columns [x_first, x_first + columns) of x[R,.].
void copy_columns(Tensor y, std::int64_t y_first, Tensor x, std::int64_t x_first, std::int64_t columns, Stream& stream);

/// Columns [y_first, y_first + columns) of y[R,.] += columns [x_first, x_first + columns) of x[R,.].
void add_columns(Tensor y, std::int64_t y_first, Tensor x, std::int64_t x_first, std::int64_t columns, Stream& stream);

/// y *= factor, any shape.
void scale(Tensor y, float factor, Stream& stream);

/// GELU in its tanh form, each tensor f32 or bf16: y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))  (Hendrycks and Gimpel, 2016)
void gelu_forward(Tensor y, Tensor x, Stream& stream);
void gelu_backward(Tensor dx, Tensor dy, Tensor x, Stream& stream);  ///< dx may be dy

/// SwiGLU, each tensor f32 or bf16: y[R,M] = silu(gate) * up, where gate_up[R,2M] holds gate in columns [0,M) and up in [M,2M)
/// (Shazeer, 2020)
void swiglu_forward(Tensor y, Tensor gate_up, Stream& stream);
void swiglu_backward(Tensor dgate_up, Tensor dy, Tensor gate_up, Stream& stream);

/// y[R,C] = x / (1 - probability) where kept, else 0; y may be x. Its backward is itself, applied to dy.
/// The mask of a row depends on (key, samples[R] i64, positions[R] i32, site, column) only; site < 2^14 counts the places of
/// dropout in the model, columns count from `first`, a multiple of 4. Four columns share one Philox call.
void dropout(Tensor y, Tensor x, double probability, const RandomKey& key, Tensor samples, Tensor positions, std::uint32_t site, Stream& stream,
             std::int64_t first = 0);

}  // namespace collimate::kernels
