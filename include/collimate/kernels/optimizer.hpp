#pragma once
#include "collimate/device/tensor.hpp"

namespace collimate::kernels {

/// Elements per block of a parameter chunk: norms and hashes are formed per block, in block order.
constexpr std::int64_t chunk_block = 1024;

/// Where Adam adds epsilon: to sqrt(vhat) as PyTorch does, or to sqrt(v) before bias correction as TensorFlow does.
enum class EpsilonForm { torch, tf };

struct AdamW {
  double rate = 0, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, decay = 0;  ///< decay is decoupled: value -= rate * decay * value
  std::int64_t step = 1;                                                  ///< 1 for the first update
  double gradient_scale = 1;                                              ///< clipping: the gradient is multiplied by it
  EpsilonForm form = EpsilonForm::torch;
};
/// One fused pass over flat fp32 ranges of equal length (Loshchilov and Hutter, 2019).
void adamw(Tensor value, Tensor gradient, Tensor first_moment, Tensor second_moment, const AdamW& how, Stream& stream);

/// sums[i] (f64) = sum of squares of block i of x (whole blocks of 1,024 f32).
void block_squares(Tensor sums, Tensor x, Stream& stream);
/// hash[1] (u64) += the sum over the elements of a 64-bit hash of (first + index, bits of x[index]): so the parts of a tensor, with their own
/// `first`, add up to the hash of the whole. x is f32 or bf16; of bf16 it is the hash of the same numbers as f32.
void element_hash(Tensor hash, Tensor x, std::int64_t first, Stream& stream);

}  // namespace collimate::kernels
