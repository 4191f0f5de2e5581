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

}  // namespace

void linear_forward(Results y, Numbers x, Numbers w, Numbers bias, bool add, Index rows, Index n, Index k) {
  const Index blocks = tiles_of(rows, row_block), width = tile_width(rows, n);
  parallel_tiles(blocks * tiles_of(n, width), true, [&](Index tile) {
    const Index row = tile % blocks * row_block, column = tile / blocks * width;
    const Index high = std::min(row_block, rows - row), wide = std::min(width, n - column);
    const Numbers terms = present(bias) ? bias + column : bias;
    packed_product(y + (row * n + column), n, {x + row * k, k, 1}, {w + column * k, k, true}, terms, add ? Write::add : Write::replace,
                   high, wide, k);
  });
}

void linear_backward_input(Results dx, Numbers dy, Numbers w, Write write, Index rows, Index n, Index k) {
  const Index blocks = tiles_of(rows, row_block), width = tile_width(rows, k);
  parallel_tiles(blocks * tiles_of(k, width), true, [&](Index tile) {
    const Index row = tile % blocks * row_block, column = tile / blocks * width;
    const Index high = std::min(row_block, rows - row), wide = std::min(width, k - column);
    packed_product(dx + (row * k + column), k, {dy + row * n, n, 1}, {w + column, k, false}, {}, write, high, wide, n);
  });
}

void linear_backward_weight(float* dw, Numbers dy, Numbers x, bool add, Index rows, Index n, Index k) {
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
      const auto pack = [&](const auto* block) {
        for (Index r = 0; r < count; ++r)
          for (Index c = 0; c < tall; c += lanes) store(left + r * left_row + c, load(block + r * n + c, tall - c));
      };
      std::visit(pack, dy + (first * n + row));
      packed_product(dw + row * k + column, k, {left, 1, left_row}, {x + (first * k + column), k, false}, {},
                     add || first ? Write::add : Write::replace, tall, broad, count);
      first += row_block;
    } while (first < rows);
  });
}

void sum_rows(float* sums, Numbers x, bool add, Index rows, Index columns) {
  constexpr Index strip = 4 * lanes;
  const auto add_rows = [=](const auto* terms) {
    parallel_tiles(tiles_of(columns, strip), rows * columns > serial_elements, [=](Index tile) {
      for (Index c = tile * strip; c < std::min(columns, (tile + 1) * strip); c += lanes) {
        const Index n = columns - c;
        Lanes total = add ? load(sums + c, n) : Lanes{};
        for (Index first = 0; first < rows; first += row_block) {
          Lanes partial{};
          for (Index r = first; r < std::min(rows, first + row_block); ++r) partial += load(terms + r * columns + c, n);
          total += partial;
        }
        store(sums + c, total, n);
      }
    });
  };
  std::visit(add_rows, x);
}

}  // namespace collimate::kernels::cpu
