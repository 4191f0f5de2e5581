#pragma once
#include <cstdint>

#include "collimate/kernels/optimizer.hpp"
#include "kernels/cpu/numbers.hpp"

namespace collimate::kernels::cpu {

void adamw(float* value, const float* gradient, float* first_moment, float* second_moment, const AdamW& how, std::int64_t count);
void block_squares(double* sums, const float* x, std::int64_t blocks);
std::uint64_t element_hash(Numbers x, std::int64_t first, std::int64_t count);

}  // namespace collimate::kernels::cpu
