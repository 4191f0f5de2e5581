#include "kernels/cpu/norm.hpp"

#include <algorithm>
#include <cmath>

#include "collimate/kernels/rows.hpp"
#include "kernels/cpu/lanes.hpp"
#include "kernels/cpu/parallel.hpp"

namespace collimate::kernels::cpu {
namespace {

using Index = std::int64_t;

float row_mean(const float* x, Index columns) {
  Lanes total{};
  for (Index c = 0; c < columns; c += lanes) total += load(x + c, columns - c);
  return sum(total) / static_cast<float>(columns);
}

/// x - mean, zero behind the row's end.
Lanes centred(const float* x, Lanes mean, Index left) {
  if (left >= lanes) return load(x) - mean;
  return select(before(left), load(x, left) - mean, Lanes{});
}

float row_square(const float* x, float mean, Index columns) {
  Lanes total{};
  for (Index c = 0; c < columns; c += lanes) {
    const Lanes v = centred(x + c, splat(mean), columns - c);
    total = fma(v, v, total);
  }
  return sum(total) / static_cast<float>(columns);
}

}  // namespace

void norm_forward(const NormForward& norm, Index rows, Index columns) {
  const auto forward = [&](auto* y, const auto* gain, const auto* bias) {
    parallel_rows(rows, columns, [&](Index r) {
      const float* x = norm.x + r * columns;
      const float mean = norm.mean ? row_mean(x, columns) : 0.0f;
      const float rstd = 1.0f / std::sqrt(row_square(x, mean, columns) + norm.eps);
      if (norm.mean) norm.mean[r] = mean;
      norm.rstd[r] = rstd;
      for (Index c = 0; c < columns; c += lanes) {
        const Index n = columns - c;
        const Lanes scaled = (load(x + c, n) - splat(mean)) * splat(rstd), scale = load(gain + c, n);
        store(y + r * columns + c, bias ? fma(scaled, scale, load(bias + c, n)) : scaled * scale, n);
      }
    });
  };
  std::visit(forward, norm.y, norm.gain, norm.bias);
}

// With h = (x - mean) rstd and g = dy gain:  dx = rstd (g - mean(g) - h mean(g h));  RMS norm has no mean(g).
// dgain = sum over rows of dy h,  dbias = sum over rows of dy.
namespace {

template <class Value>
void backward_row(const NormBackward& norm, const Value* gain, Index r, Index columns) {
  const float* x = norm.x + r * columns;
  const float* dy = norm.dy + r * columns;
  float* dx = norm.dx + r * columns;
  const Lanes mean = splat(norm.mean ? norm.mean[r] : 0.0f), rstd = splat(norm.rstd[r]);
  Lanes sum_g{}, sum_gh{};
  for (Index c = 0; c < columns; c += lanes) {
    const Index n = columns - c;
    const Lanes g = load(dy + c, n) * load(gain + c, n);
    sum_g += g;
    sum_gh = fma(g, (load(x + c, n) - mean) * rstd, sum_gh);
  }
  const float count = static_cast<float>(columns);
  const Lanes mean_g = splat(norm.mean ? sum(sum_g) / count : 0.0f), mean_gh = splat(sum(sum_gh) / count);
  for (Index c = 0; c < columns; c += lanes) {
    const Index n = columns - c;
    const Lanes g = load(dy + c, n) * load(gain + c, n);
    const Lanes h = (load(x + c, n) - mean) * rstd;
    const Lanes d = rstd * fma(-h, mean_gh, g - mean_g);
    store(dx + c, norm.add_dx ? load(dx + c, n) + d : d, n);
  }
}

}  // namespace

void norm_backward(const NormBackward& norm, Index rows, Index columns) {
  std::visit([&](const auto* gain) { parallel_rows(rows, columns, [&](Index r) { backward_row(norm, gain, r, columns); }); }, norm.gain);
  if (!norm.dgain) return;  // frozen
  constexpr Index strip = 4 * lanes;
  parallel_tiles(tiles_of(columns, strip), rows * columns > serial_elements, [&](Index tile) {
    for (Index c = tile * strip; c < std::min(columns, (tile + 1) * strip); c += lanes) {
      const Index n = columns - c;
      Lanes gain = norm.add_parameters ? load(norm.dgain + c, n) : Lanes{};
      Lanes bias = norm.add_parameters && norm.dbias ? load(norm.dbias + c, n) : Lanes{};
      for (Index first = 0; first < rows; first += row_block) {
        Lanes block_gain{}, block_bias{};
        for (Index r = first; r < std::min(rows, first + row_block); ++r) {
          const Lanes dy = load(norm.dy + r * columns + c, n);
          const Lanes mean = splat(norm.mean ? norm.mean[r] : 0.0f);
          block_gain = fma(dy, (load(norm.x + r * columns + c, n) - mean) * splat(norm.rstd[r]), block_gain);
          block_bias += dy;
        }
        gain += block_gain;
        bias += block_bias;
      }
      store(norm.dgain + c, gain, n);
      if (norm.dbias) store(norm.dbias + c, bias, n);
    }
  });
}

}  // namespace collimate::kernels::cpu
