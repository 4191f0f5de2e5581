#pragma once
#include "collimate/device/tensor.hpp"

namespace collimate::kernels {

/// y[R,C] = table[tokens[R] - first]; rows whose token is not in [first, first + rows of the table) are left as they are.
/// Tokens are i32; -1 marks a padding row. The table is f32 or bf16, y is f32.
void embedding_forward(Tensor y, Tensor table, Tensor tokens, std::int64_t first, Stream& stream);
/// dtable[token - first] += dy[row], both f32, rows in index order.
void embedding_backward(Tensor dtable, Tensor dy, Tensor tokens, std::int64_t first, Stream& stream);
/// y[R,C] += table[indices[R]] (f32 or bf16) for indices >= 0 (learned positions; -1 in padding rows). Backward: embedding_backward with
/// first 0.
void embedding_add(Tensor y, Tensor table, Tensor indices, Stream& stream);

}  // namespace collimate::kernels
