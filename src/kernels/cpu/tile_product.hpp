#pragma once
#include "kernels/cpu/lanes.hpp"

namespace collimate::kernels::cpu {

/// to[columns, rows] = from[rows, columns] transposed. Whole squares of 16 are written: what lies behind the rows and columns is zero.
template <class From>
void transpose(float* to, std::int64_t to_row, const From* from, std::int64_t from_row, std::int64_t rows, std::int64_t columns) {
  for (std::int64_t r = 0; r < rows; r += lanes)
    for (std::int64_t c = 0; c < columns; c += lanes) {
      Lanes square[lanes];
#pragma GCC unroll 16
      for (std::int64_t i = 0; i < lanes; ++i) square[i] = r + i < rows ? load(from + (r + i) * from_row + c, columns - c) : Lanes{};
      transpose(square);
#pragma GCC unroll 16
      for (std::int64_t i = 0; i < lanes; ++i) store(to + (c + i) * to_row + r, square[i]);
    }
}

/// The left factor of a small product: element (i, k) lies at data[i * row + k * step].
struct LeftFactor {
  const float* data;
  std::int64_t row, step;
};

/// Rows, and columns in lanes, of the largest tile whose sums fit into the registers: 32 of 64 bytes, or 16 of 32.
constexpr int tile_height = register_bytes >= 64 ? 8 : 6, tile_columns = register_bytes >= 64 ? 3 : 1;

/// A tile of Rows x Columns*16 elements: c = (add: c +) sum over k in order of a(i,k) b[k, :]. Each element has a sum of its own, so registers need
/// not hold whole lanes.
template <int Rows, int Columns>
void register_tile(float* c, std::int64_t c_row, LeftFactor a, const float* b, std::int64_t b_row, std::int64_t depth, bool add) {
  constexpr int wide = Columns * parts;  // registers beside each other
  Register total[Rows][wide];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < wide; ++j) total[i][j] = Register{};
  for (std::int64_t k = 0; k < depth; ++k) {
    Register right[wide];
#pragma GCC unroll 16
    for (int j = 0; j < wide; ++j) right[j] = load_part(b + k * b_row, j);
    asm volatile("" : : : "memory");  // keeps them in registers: g++ would load them again for every row
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const Register left = fill(a.data[i * a.row + k * a.step]);
#pragma GCC unroll 16
      for (int j = 0; j < wide; ++j) total[i][j] = multiply_add(left, right[j], total[i][j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < wide; ++j) {
      float* to = c + i * c_row;
      store_part(to, j, add ? load_part(to, j) + total[i][j] : total[i][j]);
    }
}

/// Tiles of Rows rows, the rest in smaller ones.
template <int Rows, int Columns>
void row_tiles(float* c, std::int64_t c_row, LeftFactor a, const float* b, std::int64_t b_row, std::int64_t rows, std::int64_t depth,
               bool add) {
  std::int64_t i = 0;
  for (; i + Rows <= rows; i += Rows)
    register_tile<Rows, Columns>(c + i * c_row, c_row, {a.data + i * a.row, a.row, a.step}, b, b_row, depth, add);
  if constexpr (Rows > 1)
    if (i < rows)
      row_tiles<(Rows > 4 ? 4 : Rows / 2), Columns>(c + i * c_row, c_row, {a.data + i * a.row, a.row, a.step}, b, b_row, rows - i, depth,
                                                    add);
}

/// c[rows, columns] = (add: c +) a[rows, depth] b[depth, columns]; columns is a multiple of 16. An element's bits do not depend on
/// the tile it falls into.
inline void tile_product(float* c, std::int64_t c_row, LeftFactor a, const float* b, std::int64_t b_row, std::int64_t rows,
                         std::int64_t columns, std::int64_t depth, bool add) {
  constexpr int height = 6, wide = register_bytes >= 64 ? 4 : 1;
  std::int64_t j = 0;
  for (; j + wide * lanes <= columns; j += wide * lanes) row_tiles<height, wide>(c + j, c_row, a, b + j, b_row, rows, depth, add);
  if (columns - j >= 2 * lanes) {
    row_tiles<8, 2>(c + j, c_row, a, b + j, b_row, rows, depth, add);
    j += 2 * lanes;
  }
  if (columns - j >= lanes) row_tiles<8, 1>(c + j, c_row, a, b + j, b_row, rows, depth, add);
}

}  // namespace collimate::kernels::cpu
