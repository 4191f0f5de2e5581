#pragma once
#include <cstdint>

#include "kernels/cpu/numbers.hpp"

namespace collimate::kernels::cpu {

/// y[row] = (add: y[row] +) table[tokens[row] - first] where that is one of the table's `entries`.
void embedding_forward(float* y, Numbers table, const std::int32_t* tokens, std::int64_t first, bool add, std::int64_t rows,
                       std::int64_t entries, std::int64_t columns);
void embedding_backward(float* dtable, const float* dy, const std::int32_t* tokens, std::int64_t first, std::int64_t rows,
                        std::int64_t entries, std::int64_t columns);

}  // namespace collimate::kernels::cpu
