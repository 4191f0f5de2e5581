#include "kernels/cpu/matmul.hpp"

#include <dnnl.h>

#include <algorithm>

#include "collimate/kernels/rows.hpp"
#include "kernels/cpu/lanes.hpp"
#include "kernels/cpu/parallel.hpp"

namespace collimate::kernels::cpu {
namespace {

using Index = std::int64_t;

/// Output columns per tile: multiples of the library's register tile (48), fixed by the shape alone.
Index tile_width(Index columns) { return columns > 1536 ? 480 : columns > 192 ? 192 : 96; }

/// c[m,n] = a b + beta c by the calling thread alone: the library sees that it runs inside a parallel region (or, in a team of
/// one, that there is one thread), so its own threading, which changes bits, stays off.
void product(char transpose_a, char transpose_b, Index m, Index n, Index k, const float* a, Index lda, const float* b, Index ldb, float beta,
             float* c, Index ldc) {
  dnnl_sgemm(transpose_a, transpose_b, m, n, k, 1.0f, a, lda, b, ldb, beta, c, ldc);
}

void fill_zero(float* p, Index rows, Index columns, Index stride) {
  for (Index r = 0; r < rows; ++r) std::fill_n(p + r * stride, columns, 0.0f);
}

void add_bias(float* y, const float* bias, Index rows, Index columns, Index stride) {
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; c += lanes) {
      const Index n = columns - c;
      store(y + r * stride + c, load(y + r * stride + c, n) + load(bias + c, n), n);
    }
}

}  // namespace

void linear_forward(float* y, const float* x, const float* w, const float* bias, bool add, Index rows, Index n, Index k) {
  const Index blocks = tiles_of(rows, row_block), width = tile_width(n), columns = tiles_of(n, width);
  parallel_tiles(blocks * columns, true, [&](Index tile) {
    const Index row = tile % blocks * row_block, column = tile / blocks * width;
    const Index high = std::min(row_block, rows - row), wide = std::min(width, n - column);
    float* out = y + row * n + column;
    if (k)
      product('N', 'T', high, wide, k, x + row * k, k, w + column * k, k, add ? 1.0f : 0.0f, out, n);
    else if (!add)
      fill_zero(out, high, wide, n);
    if (bias) add_bias(out, bias + column, high, wide, n);
  });
}

void linear_backward_input(float* dx, const float* dy, const float* w, bool add, Index rows, Index n, Index k) {
  const Index blocks = tiles_of(rows, row_block), width = tile_width(k), columns = tiles_of(k, width);
  parallel_tiles(blocks * columns, true, [&](Index tile) {
    const Index row = tile % blocks * row_block, column = tile / blocks * width;
    const Index high = std::min(row_block, rows - row), wide = std::min(width, k - column);
    float* out = dx + row * k + column;
    if (n)
      product('N', 'N', high, wide, n, dy + row * n, n, w + column, k, add ? 1.0f : 0.0f, out, k);
    else if (!add)
      fill_zero(out, high, wide, k);
  });
}

void linear_backward_weight(float* dw, const float* dy, const float* x, bool add, Index rows, Index n, Index k) {
  const Index high = n > 1536 ? 384 : n > 192 ? 192 : 64, wide = k > 1536 ? 768 : std::max<Index>(k, 1);
  const Index down = tiles_of(n, high), across = tiles_of(k, wide);
  parallel_tiles(down * across, true, [&](Index tile) {
    const Index row = tile / across * high, column = tile % across * wide;
    const Index tall = std::min(high, n - row), broad = std::min(wide, k - column);
    float* out = dw + row * k + column;
    if (!rows && !add) fill_zero(out, tall, broad, k);
    for (Index first = 0; first < rows; first += row_block)
      product('T', 'N', tall, broad, std::min(row_block, rows - first), dy + first * n + row, n, x + first * k + column, k,
              add || first ? 1.0f : 0.0f, out, k);
  });
}

void sum_rows(float* sums, const float* x, bool add, Index rows, Index columns) {
  constexpr Index strip = 4 * lanes;
  parallel_tiles(tiles_of(columns, strip), rows * columns > serial_elements, [&](Index tile) {
    for (Index c = tile * strip; c < std::min(columns, (tile + 1) * strip); c += lanes) {
      const Index n = columns - c;
      Lanes total = add ? load(sums + c, n) : Lanes{};
      for (Index first = 0; first < rows; first += row_block) {
        Lanes partial{};
        for (Index r = first; r < std::min(rows, first + row_block); ++r) partial += load(x + r * columns + c, n);
        total += partial;
      }
      store(sums + c, total, n);
    }
  });
}

namespace {

/// Dot products of Rows rows of x with Columns rows of w; each keeps its own 16 lanes over k in order, so that a result is the
/// same whatever else is computed beside it.
template <int Rows, int Columns>
void dots(float* y, const float* x, const float* w, const float* bias, Index n, Index k) {
  Lanes partial[Rows][Columns] = {};
  for (Index i = 0; i < k; i += lanes) {
    const Index left = k - i;
    Lanes b[Columns];
#pragma GCC unroll 16
    for (int c = 0; c < Columns; ++c) b[c] = load(w + c * k + i, left);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const Lanes a = load(x + r * k + i, left);
#pragma GCC unroll 16
      for (int c = 0; c < Columns; ++c) partial[r][c] = fma(a, b[c], partial[r][c]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 16
    for (int c = 0; c < Columns; ++c) y[r * n + c] = bias ? sum(partial[r][c]) + bias[c] : sum(partial[r][c]);
}

template <int Rows>
void dot_rows(float* y, const float* x, const float* w, const float* bias, Index columns, Index n, Index k) {
  Index c = 0;
  for (; c + 4 <= columns; c += 4) dots<Rows, 4>(y + c, x, w + c * k, bias ? bias + c : nullptr, n, k);
  for (; c < columns; ++c) dots<Rows, 1>(y + c, x, w + c * k, bias ? bias + c : nullptr, n, k);
}

}  // namespace

void linear_decode(float* y, const float* x, const float* w, const float* bias, Index rows, Index n, Index k) {
  constexpr Index strip = 16;
  parallel_tiles(tiles_of(n, strip), rows * n * k > 32768, [&](Index tile) {
    const Index column = tile * strip, columns = std::min(strip, n - column);
    const float* part = w + column * k;
    const float* shift = bias ? bias + column : nullptr;
    Index r = 0;
    for (; r + 4 <= rows; r += 4) dot_rows<4>(y + r * n + column, x + r * k, part, shift, columns, n, k);
    for (; r < rows; ++r) dot_rows<1>(y + r * n + column, x + r * k, part, shift, columns, n, k);
  });
}

}  // namespace collimate::kernels::cpu
