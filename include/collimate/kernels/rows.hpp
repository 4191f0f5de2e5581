#pragma once
#include <cstdint>
#include <functional>

namespace collimate::kernels {

/// Numerics contract R1: the rows (tokens) of a grain are cut into blocks of 256; the last block has at least 16 rows,
/// because a row's bits in a product are equal for all block sizes from 16 on, and differ below.
constexpr std::int64_t row_block = 256;
constexpr std::int64_t least_rows = 16;

/// Rows that a grain of n tokens occupies: n, or more where the last block would have fewer than 16 rows. 0 gives 0.
/// The rows added hold token -1: they enter every product as zeros and never receive a gradient.
constexpr std::int64_t padded_rows(std::int64_t n) {
  const std::int64_t rest = n % row_block;
  return rest && rest < least_rows ? n - rest + least_rows : n;
}

/// Calls body(begin, count) for parts of [0, rows), each on a thread of its own, on which all kernels that it calls then run. For rows
/// that do not see each other, through many kernels too small to share. An exception of a part is thrown when all have ended.
void in_parts(std::int64_t rows, const std::function<void(std::int64_t begin, std::int64_t count)>& body);

}  // namespace collimate::kernels
