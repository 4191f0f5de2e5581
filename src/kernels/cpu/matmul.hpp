#pragma once
#include <cstdint>

#include "collimate/kernels/matmul.hpp"
#include "kernels/cpu/numbers.hpp"

namespace collimate::kernels::cpu {

void linear_forward(Results y, Numbers x, Numbers w, Numbers bias, bool add, std::int64_t rows, std::int64_t n, std::int64_t k);
void linear_backward_input(Results dx, Numbers dy, Numbers w, Write write, std::int64_t rows, std::int64_t n, std::int64_t k);
void linear_backward_weight(float* dw, Numbers dy, Numbers x, bool add, std::int64_t rows, std::int64_t n, std::int64_t k);
/// sums[columns] (+)= sum of rows, block by block.
void sum_rows(float* sums, Numbers x, bool add, std::int64_t rows, std::int64_t columns);
void linear_decode(Results y, Numbers x, Numbers w, Numbers bias, std::int64_t rows, std::int64_t n, std::int64_t k);

}  // namespace collimate::kernels::cpu
