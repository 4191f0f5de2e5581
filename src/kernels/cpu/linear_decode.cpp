#include <algorithm>
#include <limits>
#include <memory>

#include "kernels/cpu/elementwise.hpp"
#include "kernels/cpu/lanes.hpp"
#include "kernels/cpu/matmul.hpp"
#include "kernels/cpu/parallel.hpp"

// A product of few rows is as fast as its weights arrive: they are read once, in order, for up to eight rows of x. Each result keeps its
// own 16 lanes over k in order, so that it is the same whatever else is computed beside it.
namespace collimate::kernels::cpu {
namespace {

using Index = std::int64_t;

/// How many rows of w are read at once: enough sums to hide the latency of an fma. With one row of x nothing else is to be done, and a
/// processor that sees one stream fetches ahead by itself; of bf16, a row comes in half the time, so that it takes two of them.
/// Where sixteen lanes take two registers, eight sums fit beside what they are made of.
template <class Value>
constexpr Index at_once(int rows) {
  if (!one_register) return rows == 1 ? 4 : 2;
  return rows == 1 ? Index{sizeof(float) / sizeof(Value)} : rows == 8 ? 2 : 4;
}

/// How many rows of x meet them at once: as many as there are registers for sums. The others follow while the weights lie in the nearest
/// cache.
constexpr Index together(int rows) { return one_register || rows == 1 ? rows : 2; }

/// Where the rows of x are many and long, they go through the nearest cache in parts: up to most_whole columns at once, else `part`.
constexpr Index most_whole(int rows) { return rows == 8 || rows > together(rows) ? 768 : std::numeric_limits<Index>::max(); }
constexpr Index part = 384;

/// Products with fewer sums are not shared among threads; with fewer weights they take some 10 microseconds at most.
constexpr Index least_shared = 30000, brief = 1 << 18;

/// Rows rows of x, zeros behind those that exist, in parts of 16 columns, and in each part one row after the other (zeros behind k):
/// the inner loop then needs one pointer for all of them.
template <int Rows>
void interleave(float* packed, const Numbers& x, Index rows, Index k) {
  const auto write = [=](const auto* from) {
    float* to = packed;
    for (Index i = 0; i < k; i += lanes)
      for (Index r = 0; r < Rows; ++r, to += lanes) store(to, r < rows ? load(from + r * k + i, k - i) : Lanes{});
  };
  std::visit(write, x);
}

/// total[r, c] += x[r, 0..count) w[first + c, 0..count) for the rows of w that are read at once; there are `columns` rows. What
/// lies `ahead` of them comes to the second cache meanwhile: measured, without that the times of memory and of arithmetic add up.
template <int Rows, class Value>
[[gnu::always_inline]] inline void accumulate(Lanes (&total)[Rows * at_once<Value>(Rows)], const float* x, const Value* w, Index first,
                                              Index columns, Index count, Index k, Index ahead) {
  constexpr Index wide = at_once<Value>(Rows);
  const Value* weights[wide];
#pragma GCC unroll 4
  for (Index c = 0; c < wide; ++c) weights[c] = w + std::min(first + c, columns - 1) * k;
  constexpr Index high = together(Rows);
#pragma GCC unroll 4
  for (Index first_row = 0; first_row < Rows; first_row += high) {
    Lanes sum[high * wide];  // in registers, which `total` need not be
#pragma GCC unroll 16
    for (Index s = 0; s < high * wide; ++s) sum[s] = total[first_row * wide + s];
    const auto step = [&](Index i, auto... left) __attribute__((always_inline)) {
      Lanes b[wide];
#pragma GCC unroll 4
      for (Index c = 0; c < wide; ++c) b[c] = in_register(load(weights[c] + i, left...));
      if constexpr (Rows > 1)
        if (first_row == 0)
#pragma GCC unroll 4
          for (Index c = 0; c < wide; ++c) __builtin_prefetch(weights[c] + i + ahead, 0, 2);
#pragma GCC unroll 8
      for (Index r = 0; r < high; ++r) {
        const Lanes a = in_register(load(x + Rows * i + (first_row + r) * lanes));
#pragma GCC unroll 4
        for (Index c = 0; c < wide; ++c) sum[r * wide + c] = fma(a, b[c], sum[r * wide + c]);
      }
    };
    Index i = 0;
    for (; i + lanes <= count; i += lanes) step(i);
    if (i < count) step(i, count - i);
#pragma GCC unroll 16
    for (Index s = 0; s < high * wide; ++s) total[first_row * wide + s] = sum[s];
  }
}

/// The sums of 16 / Rows columns, by group of columns that are read at once.
template <int Rows, class Value>
using Totals = Lanes[lanes / (Rows * at_once<Value>(Rows))][Rows * at_once<Value>(Rows)];

/// y[r, c] = sum over the lanes of a total, plus bias, for the rows and columns that exist.
template <int Rows, class Value>
[[gnu::always_inline]] inline void finish(float* y, const Totals<Rows, Value>& totals, const float* bias, Index rows, Index columns,
                                          Index n) {
  constexpr Index wide = lanes / Rows, group = at_once<Value>(Rows);
  Lanes ordered[lanes];
#pragma GCC unroll 8
  for (Index r = 0; r < Rows; ++r)
#pragma GCC unroll 16
    for (Index c = 0; c < wide; ++c) ordered[r * wide + c] = totals[c / group][r * group + c % group];
  Lanes result = sums(ordered);
  if (bias) result += repeated<wide>(load(bias, std::min(columns, wide)));
  alignas(64) float results[lanes];
  store(results, result);
  if (rows == Rows && columns >= wide) {
#pragma GCC unroll 8
    for (Index r = 0; r < Rows; ++r) std::memcpy(y + r * n, results + r * wide, wide * sizeof(float));
  } else {
    for (Index r = 0; r < rows; ++r) std::copy_n(results + r * wide, std::min(columns, wide), y + r * n);
  }
}

/// Up to Rows rows and 16 columns of y.
template <int Rows, class Value>
void strip(float* y, const float* x, const Value* w, const float* bias, Index rows, Index columns, Index n, Index k) {
  constexpr Index wide = lanes / Rows, group = at_once<Value>(Rows);
  const auto finished = [&](const Totals<Rows, Value>& totals, Index c) __attribute__((always_inline)) {
    finish<Rows, Value>(y + c, totals, bias ? bias + c : nullptr, rows, columns - c, n);
  };
  if (k <= most_whole(Rows)) {  // the sums stay in registers
    for (Index c = 0; c < columns; c += wide) {
      Totals<Rows, Value> totals{};
#pragma GCC unroll 16
      for (Index g = 0; g < wide; g += group) accumulate<Rows, Value>(totals[g / group], x, w, c + g, columns, k, k, group * k + 1024);
      finished(totals, c);
    }
    return;
  }
  Totals<Rows, Value> totals[Rows]{};
  for (Index begin = 0; begin < k; begin += part)
    for (Index c = 0; c < columns; c += group)
      accumulate<Rows, Value>(totals[c / wide][c % wide / group], x + Rows * begin, w + begin, c, columns, std::min(part, k - begin), k,
                       4 * group * k);
  for (Index c = 0; c < columns; c += wide) finished(totals[c / wide], c);
}

template <int Rows, class Value>
void decode_rows(const Results& y, const Numbers& x, const Value* w, const float* bias, Index rows, Index n, Index k) {
  std::unique_ptr<Lanes[]> lines;
  const float* packed = nullptr;
  if (const auto* wide = std::get_if<const float*>(&x); Rows == 1 && k % lanes == 0 && wide) {
    packed = *wide;
  } else {
    lines = std::make_unique_for_overwrite<Lanes[]>(static_cast<std::size_t>(Rows * tiles_of(k, lanes)));
    interleave<Rows>(reinterpret_cast<float*>(lines.get()), x, rows, k);
    packed = reinterpret_cast<float*>(lines.get());
  }
  const auto tile = [&](Index t) {
    const Index c = t * lanes, columns = std::min(lanes, n - c);
    const float* terms = bias ? bias + c : nullptr;
    if (const auto* wide = std::get_if<float*>(&y)) return strip<Rows>(*wide + c, packed, w + c * k, terms, rows, columns, n, k);
    alignas(64) float sums[Rows * lanes];
    strip<Rows>(sums, packed, w + c * k, terms, rows, columns, lanes, k);
    for (Index r = 0; r < rows; ++r) store(std::get<BFloat16*>(y) + r * n + c, load(sums + r * lanes, columns), columns);
  };
  parallel_tiles(tiles_of(n, lanes), Rows * n * k > least_shared, tile, n * k < brief ? Shares::equal : Shares::decreasing);
}

/// A bias as fp32: bf16 is widened into `room`, once for all rows.
const float* in_fp32(const Numbers& bias, std::unique_ptr<float[]>& room, Index n) {
  if (const auto* wide = std::get_if<const float*>(&bias)) return *wide;
  room = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(n));
  cast(room.get(), std::get<const BFloat16*>(bias), n);
  return room.get();
}

}  // namespace

void linear_decode(Results y, Numbers x, Numbers w, Numbers bias, Index rows, Index n, Index k) {
  std::unique_ptr<float[]> room;
  const float* terms = in_fp32(bias, room, n);
  const auto decode_with = [&]<class Value>(const Value* weights) {
    for (Index r = 0; r < rows; r += 8) {
      const Index count = std::min<Index>(8, rows - r);
      const auto decode = count > 4   ? decode_rows<8, Value>
                          : count > 2 ? decode_rows<4, Value>
                          : count > 1 ? decode_rows<2, Value>
                                      : decode_rows<1, Value>;
      decode(y + r * n, x + r * k, weights, terms, count, n, k);
    }
  };
  std::visit(decode_with, w);
}

}  // namespace collimate::kernels::cpu
