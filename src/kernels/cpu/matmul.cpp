#include "kernels/cpu/matmul.hpp"

#include <algorithm>

#include "collimate/kernels/rows.hpp"
#include "kernels/cpu/packed_product.hpp"
#include "kernels/cpu/parallel.hpp"

namespace collimate::kernels::cpu {
namespace {

using Index = std::int64_t;

/// Output columns per tile: multiples of the register tile (48), fixed by the shape alone; narrower where few rows give few tiles.
Index tile_width(Index rows, Index columns) {
  if (columns > 1536) return 480;
  return (columns > 192 ? 192 : 96) / (rows > 2 * row_block ? 1 : 2);
}

void add_bias(float* y, const Numbers& bias, Index rows, Index columns, Index stride) {
  std::visit(
      [=](const auto* terms) {
        for (Index r = 0; r < rows; ++r)
          for (Index c = 0; c < columns; c += lanes) {
            const Index n = columns - c;
            store(y + r * stride + c, load(y + r * stride + c, n) + load(terms + c, n), n);
          }
      },
      bias);
}

}  // namespace

void linear_forward(float* y, const float* x, Numbers w, Numbers bias, bool add, Index rows, Index n, Index k) {
  const Index blocks = tiles_of(rows, row_block), width = tile_width(rows, n);
  parallel_tiles(blocks * tiles_of(n, width), true, [&](Index tile) {
    const Index row = tile % blocks * row_block, column = tile / blocks * width;
    const Index high = std::min(row_block, rows - row), wide = std::min(width, n - column);
    float* out = y + row * n + column;
    packed_product(out, n, {x + row * k, k, 1}, {w + column * k, k, true}, add ? Write::add : Write::replace, high, wide, k);
    if (present(bias)) add_bias(out, bias + column, high, wide, n);
  });
}

void linear_backward_input(float* dx, const float* dy, Numbers w, Write write, Index rows, Index n, Index k) {
  const Index blocks = tiles_of(rows, row_block), width = tile_width(rows, k);
  parallel_tiles(blocks * tiles_of(k, width), true, [&](Index tile) {
    const Index row = tile % blocks * row_block, column = tile / blocks * width;
    const Index high = std::min(row_block, rows - row), wide = std::min(width, k - column);
    float* out = dx + row * k + column;
    packed_product(out, k, {dy + row * n, n, 1}, {w + column, k, false}, write, high, wide, n);
  });
}

void linear_backward_weight(float* dw, const float* dy, const float* x, bool add, Index rows, Index n, Index k) {
  const Index high = n > 1536  ? 256
                     : n > 512 ? 128
                               : std::max<Index>(64, (n + 31) / 32 * 8),
              wide = k > 768 ? 768 : std::max<Index>(k, 1), across = tiles_of(k, wide);
  parallel_tiles(tiles_of(n, high) * across, true, [&](Index tile) {
    const Index row = tile / across * high, column = tile % across * wide;
    const Index left_row = high + lanes;
    const Index tall = std::min(high, n - row), broad = std::min(wide, k - column);
    alignas(64) float left[row_block * (256 + lanes)];  // this block of dy, its rows close together
    Index first = 0;
    do {
      const Index count = std::min(row_block, rows - first);
      for (Index r = 0; r < count; ++r)
        for (Index c = 0; c < tall; c += lanes) store(left + r * left_row + c, load(dy + (first + r) * n + row + c, tall - c));
      packed_product(dw + row * k + column, k, {left, 1, left_row}, {x + first * k + column, k, false}, add || first ? Write::add : Write::replace, tall, broad, count);
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

}  // namespace collimate::kernels::cpu
