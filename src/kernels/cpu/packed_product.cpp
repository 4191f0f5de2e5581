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
  float left[row_block * depth];  ///< a block of bf16 rows, widened
};

/// Rows [row, row + rows) and columns [first, first + count) of a: in place, or widened beside it.
LeftFactor left_part(float* memory, const PackedLeft& a, Index row, Index rows, Index first, Index count) {
  const auto place = [&](const auto* data) { return data + row * a.row + first * a.step; };
  if (const auto* wide = std::get_if<const float*>(&a.data)) return {place(*wide), a.row, a.step};
  const BFloat16* brief = place(std::get<const BFloat16*>(a.data));
  for (Index r = 0; r < rows; ++r)
    for (Index k = 0; k < count; k += lanes) store(memory + r * depth + k, load(brief + r * a.row + k, count - k));
  return {memory, depth, 1};
}

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

void copy_out(const Results& c, Index c_row, const float* out, bool add, const Numbers& bias, Index rows, Index columns) {
  const auto copy = [=](auto* to, const auto* terms) {
    for (Index r = 0; r < rows; ++r)
      for (Index j = 0; j < columns; j += lanes) {
        const Index n = columns - j;
        Lanes value = load(out + r * strip + j);
        if (add) value = load(to + r * c_row + j, n) + value;
        if (terms) value += load(terms + j, n);
        store(to + r * c_row + j, value, n);
      }
  };
  std::visit(copy, c, bias);
}

void add_bias(float* c, Index c_row, const Numbers& bias, Index rows, Index columns) {
  const auto add = [=](const auto* terms) {
    for (Index r = 0; r < rows; ++r)
      for (Index j = 0; j < columns; j += lanes) store(c + r * c_row + j, load(c + r * c_row + j) + load(terms + j));
  };
  std::visit(add, bias);
}

}  // namespace

void packed_product(const Results& c, Index c_row, const PackedLeft& a, const RightFactor& b, const Numbers& bias, Write write, Index m,
                    Index n, Index k) {
  Memory memory;
  const bool add = write == Write::add, on = write == Write::go_on, biased = present(bias);
  if (k == 0) std::fill(std::begin(memory.out), std::end(memory.out), 0.0f);
  for (Index row = 0; row < m; row += row_block)
    for (Index column = 0; column < n; column += strip) {
      const Index rows = std::min(row_block, m - row), columns = std::min(strip, n - column);
      const Results to = c + (row * c_row + column);
      float* const* wide = std::get_if<float*>(&to);
      // In place; else beside c, because whole lanes are written, or c is added last, or it is rounded then.
      const bool here = wide && columns % lanes == 0 && k && !(add && k > depth);
      float* const out = here ? *wide : memory.out;
      const Index out_row = here ? c_row : strip;
      if (on && !here) copy_in(out, std::get<float*>(to), c_row, rows, columns);
      for (Index first = 0; first < k; first += depth) {
        const Index count = std::min(depth, k - first);
        pack(memory.right, b, first, count, column, columns);
        strip_product(memory.right, out, out_row, left_part(memory.left, a, row, rows, first, count), rows, columns, count,
                      first > 0 || on || (here && add));
      }
      const Numbers terms = biased ? bias + column : bias;
      if (!here) copy_out(to, c_row, out, add, terms, rows, columns);
      if (here && biased) add_bias(out, c_row, terms, rows, columns);
    }
}

}  // namespace collimate::kernels::cpu
