#pragma once
#include <cstdint>

#include "collimate/base/random.hpp"
#include "kernels/cpu/numbers.hpp"

namespace collimate::kernels::cpu {

void cast(float* to, const BFloat16* from, std::int64_t count);
void cast(BFloat16* to, const float* from, std::int64_t count);
void add(float* y, const float* a, const float* b, std::int64_t count);
void add(std::int32_t* y, const std::int32_t* a, const std::int32_t* b, std::int64_t count);  ///< wraps around
void add_bias(float* y, Numbers bias, std::int64_t rows, std::int64_t columns);
void copy_columns(float* y, std::int64_t y_stride, const float* x, std::int64_t x_stride, std::int64_t rows, std::int64_t columns);
void add_columns(float* y, std::int64_t y_stride, const float* x, std::int64_t x_stride, std::int64_t rows, std::int64_t columns);
void scale(float* y, float factor, std::int64_t count);
void gelu_forward(Results y, Numbers x, std::int64_t count);
void gelu_backward(Results dx, Numbers dy, Numbers x, std::int64_t count);
void swiglu_forward(Results y, Numbers gate_up, std::int64_t rows, std::int64_t columns);
void swiglu_backward(Results dgate_up, Numbers dy, Numbers gate_up, std::int64_t rows, std::int64_t columns);
void dropout(float* y, const float* x, double probability, const RandomKey& key, const std::int64_t* samples, const std::int32_t* positions,
             std::uint32_t site, std::int64_t first_column, std::int64_t rows, std::int64_t columns);

}  // namespace collimate::kernels::cpu
