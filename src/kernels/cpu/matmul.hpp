#pragma once
#include <cstdint>

#include "collimate/kernels/matmul.hpp"
#include "kernels/cpu/numbers.hpp"

namespace collimate::kernels::cpu {

void linear_forward(float* y, const float* x, Numbers w, Numbers bias, bool add, std::int64_t rows, std::int64_t n, std::int64_t k);
void linear_backward_input(float* dx, const float* dy, Numbers w, Write write, std::int64_t rows, std::int64_t n, std::int64_t k);
void linear_backward_weight(float* dw, const float* dy, const float* x, bool add, std::int64_t rows, std::int64_t n, std::int64_t k);
/// sums[columns] (+)= sum of rows, block by block.
void sum_rows(float* sums, const float* x, bool add, std::int64_t rows, std::int64_t columns);
void linear_decode(float* y, const float* x, Numbers w, Numbers bias, std::int64_t rows, std::int64_t n, std::int64_t k);

}  // namespace collimate::kernels::cpu
