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

/// An extent cut into tiles of one width; a rest of fewer than 16 joins the last tile.
struct Tiles {
  Index extent, width;
  Index count() const { return std::max<Index>(extent ? 1 : 0, (extent + width - lanes) / width); }
  Index begin(Index tile) const { return tile * width; }
  Index size(Index tile) const { return tile + 1 == count() ? extent - begin(tile) : width; }
};

/// A product with one row or one column, for which the library has other code whose bits depend on its number of threads.
void thin_product(bool transpose_a, bool transpose_b, Index m, Index n, Index k, const float* a, Index lda, const float* b, Index ldb, float beta,
                  float* c, Index ldc) {
  for (Index i = 0; i < m; ++i)
    for (Index j = 0; j < n; ++j) {
      float total = 0;
      for (Index l = 0; l < k; ++l)
        total = __builtin_fmaf(a[transpose_a ? l * lda + i : i * lda + l], b[transpose_b ? j * ldb + l : l * ldb + j], total);
      c[i * ldc + j] = beta == 0 ? total : c[i * ldc + j] + total;
    }
}

/// c[m,n] = a b + beta c by the calling thread alone: the library sees that it runs inside a parallel region (or, in a team of
/// one, that there is one thread), so its own threading, which changes bits, stays off. With b transposed, the library chooses
/// between two algorithms by m, and their bits agree only while one block of each holds all of k: k is cut here.
void product(char transpose_a, char transpose_b, Index m, Index n, Index k, const float* a, Index lda, const float* b, Index ldb, float beta,
             float* c, Index ldc) {
  if (m == 1 || n == 1) return thin_product(transpose_a == 'T', transpose_b == 'T', m, n, k, a, lda, b, ldb, beta, c, ldc);
  constexpr Index deepest = 768;
  const Index pieces = transpose_b == 'T' ? tiles_of(k, deepest) : 1;
  const Index depth = pieces > 1 ? tiles_of(tiles_of(k, pieces), lanes) * lanes : k;
  for (Index l = 0; l < k; l += depth)
    dnnl_sgemm(transpose_a, transpose_b, m, n, std::min(depth, k - l), 1.0f, a + l, lda, b + l, ldb, l ? 1.0f : beta, c, ldc);
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
  const Index blocks = tiles_of(rows, row_block);
  const Tiles columns{n, tile_width(n)};
  parallel_tiles(blocks * columns.count(), true, [&](Index tile) {
    const Index row = tile % blocks * row_block, column = columns.begin(tile / blocks);
    const Index high = std::min(row_block, rows - row), wide = columns.size(tile / blocks);
    float* out = y + row * n + column;
    if (k)
      product('N', 'T', high, wide, k, x + row * k, k, w + column * k, k, add ? 1.0f : 0.0f, out, n);
    else if (!add)
      fill_zero(out, high, wide, n);
    if (bias) add_bias(out, bias + column, high, wide, n);
  });
}

void linear_backward_input(float* dx, const float* dy, const float* w, bool add, Index rows, Index n, Index k) {
  const Index blocks = tiles_of(rows, row_block);
  const Tiles columns{k, tile_width(k)};
  parallel_tiles(blocks * columns.count(), true, [&](Index tile) {
    const Index row = tile % blocks * row_block, column = columns.begin(tile / blocks);
    const Index high = std::min(row_block, rows - row), wide = columns.size(tile / blocks);
    float* out = dx + row * k + column;
    if (n)
      product('N', 'N', high, wide, n, dy + row * n, n, w + column, k, add ? 1.0f : 0.0f, out, k);
    else if (!add)
      fill_zero(out, high, wide, k);
  });
}

void linear_backward_weight(float* dw, const float* dy, const float* x, bool add, Index rows, Index n, Index k) {
  const Tiles down{n, n > 1536 ? 384 : n > 192 ? 192 : 64}, across{k, k > 1536 ? 768 : std::max<Index>(k, 1)};
  parallel_tiles(down.count() * across.count(), true, [&](Index tile) {
    const Index row = down.begin(tile / across.count()), column = across.begin(tile % across.count());
    const Index tall = down.size(tile / across.count()), broad = across.size(tile % across.count());
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

/// Dot products of Rows rows of x with 16 / Rows rows of w, of which `columns` exist. Each keeps its own 16 lanes over k in order,
/// so that a result is the same whatever else is computed beside it.
template <int Rows>
void dots(float* y, const float* x, const float* w, const float* bias, Index columns, Index n, Index k) {
  constexpr int wide = lanes / Rows;
  const float* weights[wide];
#pragma GCC unroll 16
  for (int c = 0; c < wide; ++c) weights[c] = w + std::min<Index>(c, columns - 1) * k;
  Lanes partial[lanes] = {};
  const auto step = [&](Index i, auto... left) {
    Lanes b[wide];
#pragma GCC unroll 16
    for (int c = 0; c < wide; ++c) b[c] = load(weights[c] + i, left...);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const Lanes a = load(x + r * k + i, left...);
#pragma GCC unroll 16
      for (int c = 0; c < wide; ++c) partial[r * wide + c] = fma(a, b[c], partial[r * wide + c]);
    }
  };
  Index i = 0;
  for (; i + lanes <= k; i += lanes) step(i);
  if (i < k) step(i, k - i);
  float results[lanes];
  store(results, sums(partial));
  const Index count = std::min<Index>(columns, wide);
  for (int r = 0; r < Rows; ++r)
    for (Index c = 0; c < count; ++c) y[r * n + c] = bias ? results[r * wide + c] + bias[c] : results[r * wide + c];
}

template <int Rows>
void dot_rows(float* y, const float* x, const float* w, const float* bias, Index columns, Index n, Index k) {
  for (Index c = 0; c < columns; c += lanes / Rows) dots<Rows>(y + c, x, w + c * k, bias ? bias + c : nullptr, columns - c, n, k);
}

}  // namespace

void linear_decode(float* y, const float* x, const float* w, const float* bias, Index rows, Index n, Index k) {
  constexpr Index strip = lanes;
  parallel_tiles(tiles_of(n, strip), rows * n * k > 100000, [&](Index tile) {
    const Index column = tile * strip, columns = std::min(strip, n - column);
    const float* part = w + column * k;
    const float* shift = bias ? bias + column : nullptr;
    Index r = 0;
    for (; r + 4 <= rows; r += 4) dot_rows<4>(y + r * n + column, x + r * k, part, shift, columns, n, k);
    for (; r + 2 <= rows; r += 2) dot_rows<2>(y + r * n + column, x + r * k, part, shift, columns, n, k);
    if (r < rows) dot_rows<1>(y + r * n + column, x + r * k, part, shift, columns, n, k);
  });
}

}  // namespace collimate::kernels::cpu
