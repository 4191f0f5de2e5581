#include "kernels/cpu/matmul.hpp"

#include <algorithm>
#include <memory>

#include "collimate/kernels/rows.hpp"
#include "kernels/cpu/packed_product.hpp"
#include "kernels/cpu/parallel.hpp"

namespace collimate::kernels::cpu {
namespace {

using Index = std::int64_t;

/// Output columns per tile: multiples of the register tile (48), fixed by the shape alone.
Index tile_width(Index columns) { return columns > 1536 ? 480 : columns > 192 ? 192 : 96; }

void add_bias(float* y, const float* bias, Index rows, Index columns, Index stride) {
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; c += lanes) {
      const Index n = columns - c;
      store(y + r * stride + c, load(y + r * stride + c, n) + load(bias + c, n), n);
    }
}

}  // namespace

void linear_forward(float* y, const float* x, const float* w, const float* bias, bool add, Index rows, Index n, Index k) {
  const Index blocks = tiles_of(rows, row_block), width = tile_width(n);
  parallel_tiles(blocks * tiles_of(n, width), true, [&](Index tile) {
    const Index row = tile % blocks * row_block, column = tile / blocks * width;
    const Index high = std::min(row_block, rows - row), wide = std::min(width, n - column);
    float* out = y + row * n + column;
    packed_product(out, n, {x + row * k, k, 1}, {w + column * k, k, true}, add, high, wide, k);
    if (bias) add_bias(out, bias + column, high, wide, n);
  });
}

void linear_backward_input(float* dx, const float* dy, const float* w, bool add, Index rows, Index n, Index k) {
  const Index blocks = tiles_of(rows, row_block), width = tile_width(k);
  parallel_tiles(blocks * tiles_of(k, width), true, [&](Index tile) {
    const Index row = tile % blocks * row_block, column = tile / blocks * width;
    const Index high = std::min(row_block, rows - row), wide = std::min(width, k - column);
    float* out = dx + row * k + column;
    packed_product(out, k, {dy + row * n, n, 1}, {w + column, k, false}, add, high, wide, n);
  });
}

void linear_backward_weight(float* dw, const float* dy, const float* x, bool add, Index rows, Index n, Index k) {
  constexpr Index left_row = row_block + lanes;  // not a power of two: its rows fall into different parts of the cache
  const Index high = n > 1536 ? 256 : n > 192 ? 128 : 64, wide = k > 768 ? 768 : std::max<Index>(k, 1), across = tiles_of(k, wide);
  parallel_tiles(tiles_of(n, high) * across, true, [&](Index tile) {
    const Index row = tile / across * high, column = tile % across * wide;
    const Index tall = std::min(high, n - row), broad = std::min(wide, k - column);
    alignas(64) float left[256 * left_row];  // the block of dy, transposed
    Index first = 0;
    do {
      const Index count = std::min(row_block, rows - first);
      transpose(left, left_row, dy + first * n + row, n, count, tall);
      packed_product(dw + row * k + column, k, {left, left_row, 1}, {x + first * k + column, k, false}, add || first, tall, broad, count);
      first += row_block;
    } while (first < rows);
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

/// Rows rows of x in parts of 16 columns, and in each part one row after the other (zeros behind k): the inner loop of `dots` then
/// needs one pointer for all of them.
template <int Rows>
void interleave(float* packed, const float* x, Index k) {
  for (Index i = 0; i < k; i += lanes)
    for (Index r = 0; r < Rows; ++r, packed += lanes) store(packed, load(x + r * k + i, k - i));
}

/// Dot products of Rows interleaved rows of x with 16 / Rows rows of w, of which `columns` exist. Each keeps its own 16 lanes over k in
/// order, so that a result is the same whatever else is computed beside it. The next rows of w come to the nearest cache
/// meanwhile: measured, without that several rows of x cost the time of memory and of arithmetic, one after the other.
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
    if constexpr (Rows > 1)
#pragma GCC unroll 16
      for (int c = 0; c < wide; ++c) __builtin_prefetch(weights[c] + i + wide * k);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const Lanes a = load(x + Rows * i + r * lanes);
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
  const Index row = tiles_of(k, lanes) * lanes, fours = rows / 4 * 4, twos = rows / 2 * 2;
  const auto packed = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(rows * row));
  for (Index r = 0; r < fours; r += 4) interleave<4>(packed.get() + r * row, x + r * k, k);
  if (fours < twos) interleave<2>(packed.get() + fours * row, x + fours * k, k);
  if (twos < rows) interleave<1>(packed.get() + twos * row, x + twos * k, k);
  parallel_tiles(tiles_of(n, strip), rows * n * k > 100000, [&](Index tile) {
    const Index column = tile * strip, columns = std::min(strip, n - column);
    const float* part = w + column * k;
    const float* shift = bias ? bias + column : nullptr;
    for (Index r = 0; r < fours; r += 4) dot_rows<4>(y + r * n + column, packed.get() + r * row, part, shift, columns, n, k);
    if (fours < twos) dot_rows<2>(y + fours * n + column, packed.get() + fours * row, part, shift, columns, n, k);
    if (twos < rows) dot_rows<1>(y + twos * n + column, packed.get() + twos * row, part, shift, columns, n, k);
  });
}

}  // namespace collimate::kernels::cpu
