#include "kernels/cpu/packed_product.hpp"

#include <algorithm>
#include <iterator>

#include "collimate/kernels/rows.hpp"

namespace collimate::kernels::cpu {
namespace {

using Index = std::int64_t;

constexpr Index depth = 256;                   ///< a part of k: its products are summed up by themselves, then the parts in order
constexpr Index strip = tile_columns * lanes;  ///< columns of b packed at once

struct alignas(64) Memory {
  float right[depth * strip], out[row_block * strip];
};

/// packed[k, strip] = b from (first, column) on, columns behind n zero.
void pack(float* packed, const RightFactor& b, Index first, Index count, Index column, Index columns) {
  std::visit(
      [&](const auto* data) {
        if (b.transposed) return transpose(packed, strip, data + column * b.row + first, b.row, columns, count);
        for (Index k = 0; k < count; ++k)
          for (Index j = 0; j < columns; j += lanes)
            store(packed + k * strip + j, load(data + (first + k) * b.row + column + j, columns - j));
      },
      b.data);
}

void strip_product(const float* right, float* out, Index out_row, LeftFactor a, Index rows, Index columns, Index count, bool add) {
  constexpr int two = std::min(2, tile_columns);
  if (columns > two * lanes) return row_tiles<tile_height, tile_columns>(out, out_row, a, right, strip, rows, count, add);
  if (columns > lanes) return row_tiles<tile_height, two>(out, out_row, a, right, strip, rows, count, add);
  row_tiles<tile_height, 1>(out, out_row, a, right, strip, rows, count, add);
}

/// Between c and the memory beside it, whose rows are a strip apart.
void copy_in(float* out, const float* c, Index c_row, Index rows, Index columns) {
  for (Index r = 0; r < rows; ++r)
    for (Index j = 0; j < columns; j += lanes) store(out + r * strip + j, load(c + r * c_row + j, columns - j));
}

void copy_out(float* c, Index c_row, const float* out, bool add, Index rows, Index columns) {
  for (Index r = 0; r < rows; ++r)
    for (Index j = 0; j < columns; j += lanes) {
      float* to = c + r * c_row + j;
      const Lanes value = load(out + r * strip + j);
      store(to, add ? load(to, columns - j) + value : value, columns - j);
    }
}

}  // namespace

void packed_product(float* c, Index c_row, LeftFactor a, RightFactor b, Write write, Index m, Index n, Index k) {
  Memory memory;
  const bool add = write == Write::add, on = write == Write::go_on;
  if (k == 0) std::fill(std::begin(memory.out), std::end(memory.out), 0.0f);
  for (Index row = 0; row < m; row += row_block)
    for (Index column = 0; column < n; column += strip) {
      const Index rows = std::min(row_block, m - row), columns = std::min(strip, n - column);
      float* const to = c + row * c_row + column;
      const bool here = columns % lanes == 0 && k && !(add && k > depth);  // else beside c: whole lanes are written, and c is added last
      float* const out = here ? to : memory.out;
      const Index out_row = here ? c_row : strip;
      if (on && !here) copy_in(out, to, c_row, rows, columns);
      for (Index first = 0; first < k; first += depth) {
        const Index count = std::min(depth, k - first);
        pack(memory.right, b, first, count, column, columns);
        strip_product(memory.right, out, out_row, {a.data + row * a.row + first * a.step, a.row, a.step}, rows, columns, count,
                      first > 0 || on || (here && add));
      }
      if (!here) copy_out(to, c_row, out, add, rows, columns);
    }
}

}  // namespace collimate::kernels::cpu
