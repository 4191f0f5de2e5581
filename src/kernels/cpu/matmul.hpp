#pragma once
#include <cstdint>

#include "collimate/kernels/matmul.hpp"

namespace collimate::kernels::cpu {

void linear_forward(float* y, const float* x, const float* w, const float* bias, bool add, std::int64_t rows, std::int64_t n,
                    std::int64_t k);
void linear_backward_input(float* dx, const float* dy, const float* w, Write write, std::int64_t rows, std::int64_t n, std::int64_t k);
void linear_backward_weight(float* dw, const float* dy, const float* x, bool add, std::int64_t rows, std::int64_t n, std::int64_t k);
/// sums[columns] (+)= sum of rows, block by block.
void sum_rows(float* sums, const float* x, bool add, std::int64_t rows, std::int64_t columns);
void linear_decode(float* y, const float* x, const float* w, const float* bias, std::int64_t rows, std::int64_t n, std::int64_t k);

}  // namespace collimate::kernels::cpu
