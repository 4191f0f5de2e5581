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

/// The largest tile whose sums fit into the registers: 32 of 64 bytes, or 16 of 32.
constexpr int tile_height = one_register ? 8 : 6, tile_columns = one_register ? 3 : 1;

/// A tile of Rows x Columns*16 elements: c = (add: c +) sum over k in order of a(i,k) b[k, :].
template <int Rows, int Columns>
void register_tile(float* c, std::int64_t c_row, LeftFactor a, const float* b, std::int64_t b_row, std::int64_t depth, bool add) {
  Lanes total[Rows][Columns];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < Columns; ++j) total[i][j] = Lanes{};
  for (std::int64_t k = 0; k < depth; ++k) {
    Lanes right[Columns];
#pragma GCC unroll 16
    for (int j = 0; j < Columns; ++j) right[j] = in_register(load(b + k * b_row + j * lanes));
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const Lanes left = splat(a.data[i * a.row + k * a.step]);
#pragma GCC unroll 16
      for (int j = 0; j < Columns; ++j) total[i][j] = fma(left, right[j], total[i][j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < Columns; ++j) {
      float* to = c + i * c_row + j * lanes;
      store(to, add ? load(to) + total[i][j] : total[i][j]);
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
  constexpr int height = one_register ? 6 : tile_height, wide = one_register ? 4 : tile_columns;
  std::int64_t j = 0;
  for (; j + wide * lanes <= columns; j += wide * lanes) row_tiles<height, wide>(c + j, c_row, a, b + j, b_row, rows, depth, add);
  if constexpr (wide > 1) {
    if (columns - j >= 2 * lanes) {
      row_tiles<8, 2>(c + j, c_row, a, b + j, b_row, rows, depth, add);
      j += 2 * lanes;
    }
    if (columns - j >= lanes) row_tiles<8, 1>(c + j, c_row, a, b + j, b_row, rows, depth, add);
  }
}

}  // namespace collimate::kernels::cpu
