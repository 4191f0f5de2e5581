#pragma once
#include "collimate/kernels/matmul.hpp"
#include "kernels/cpu/numbers.hpp"
#include "kernels/cpu/tile_product.hpp"

namespace collimate::kernels::cpu {

/// The left factor of a product: element (i, k) lies at data[i * row + k * step]; the step of bf16 is 1.
struct PackedLeft {
  Numbers data;
  std::int64_t row, step;
};

/// The right factor of a product: element (k, j) lies at data[k * row + j], or transposed at data[j * row + k].
struct RightFactor {
  Numbers data;
  std::int64_t row;
  bool transposed;
};

/// c[m,n] = a[m,k] b[k,n] (+ bias[n]), written as asked (bf16: replaced), by the calling thread. Every element is summed by fused
/// multiply-adds in the order of k over parts of 256, and the parts in order (those of a product that goes on behind those before it), then
/// the bias: its bits depend on its row of a and column of b alone, and are the same on every instruction set that has fma.
void packed_product(const Results& c, std::int64_t c_row, const PackedLeft& a, const RightFactor& b, const Numbers& bias, Write write,
                    std::int64_t m, std::int64_t n, std::int64_t k);

}  // namespace collimate::kernels::cpu
