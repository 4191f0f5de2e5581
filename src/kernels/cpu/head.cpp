#include "kernels/cpu/head.hpp"

#include <algorithm>
#include <cmath>

#include "collimate/kernels/rows.hpp"
#include "kernels/cpu/lanes.hpp"
#include "kernels/cpu/parallel.hpp"

namespace collimate::kernels::cpu {
namespace {

using Index = std::int64_t;

constexpr Index vocabulary_tile = 1024;
constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

/// Sums over one tile of scaled logits: the maximum m, sum exp(l - m) and sum exp(l - m) l.
struct TileSums {
  float max, weight, weighted;
};

TileSums tile_sums(const float* logits, Index count, Lanes inverse_temperature) {
  const Index body = count / lanes * lanes, left = count - body;
  const IntLanes inside = before(left);
  const Lanes rest = load(logits + body, left) * inverse_temperature;
  Lanes top = select(inside, rest, splat(minus_infinity));
  for (Index i = 0; i < body; i += lanes) top = max(load(logits + i) * inverse_temperature, top);
  const float m = largest(top);
  Lanes weight{}, weighted{};
  const auto step = [&](Lanes l, Lanes e) {
    weight += e;
    weighted = fma(e, l, weighted);
  };
  for (Index i = 0; i < body; i += lanes) {
    const Lanes l = load(logits + i) * inverse_temperature;
    step(l, exp(l - splat(m)));
  }
  if (left) step(rest, select(inside, exp(rest - splat(m)), Lanes{}));
  return {m, sum(weight), sum(weighted)};
}

bool in_shard(std::int32_t target, Index first, Index columns) { return target >= 0 && target >= first && target < first + columns; }

}  // namespace

void logit_statistics(float* statistics, double* sums, const float* logits, const std::int32_t* targets, Index first, float temperature, bool go_on,
                      Index rows, Index columns) {
  const float inverse = 1.0f / temperature;
  parallel_rows(rows, std::max<Index>(columns, 1), [=](Index r) {
    const float* row = logits + r * columns;
    float *out = statistics + 4 * r, top = go_on ? out[0] : minus_infinity;
    double weight = go_on ? sums[2 * r] : 0, weighted = go_on ? sums[2 * r + 1] : 0;
    for (Index begin = 0; begin < columns; begin += vocabulary_tile) {
      const TileSums tile = tile_sums(row + begin, std::min(vocabulary_tile, columns - begin), splat(inverse));
      const float next = tile.max > top ? tile.max : top;
      const double old_scale = top == next ? 1.0 : exp(top - next), scale = tile.max == next ? 1.0 : exp(tile.max - next);
      weight = weight * old_scale + tile.weight * scale;
      weighted = weighted * old_scale + tile.weighted * scale;
      top = next;
    }
    out[0] = top;
    out[1] = static_cast<float>(sums[2 * r] = weight);
    out[2] = static_cast<float>(sums[2 * r + 1] = weighted);
    if (in_shard(targets[r], first, columns))
      out[3] = row[targets[r] - first] * inverse;
    else if (!go_on)
      out[3] = minus_infinity;
  });
}

void merge_statistics(float* statistics, const float* other, Index rows) {
  const FlushSubnormals flush;
  for (Index r = 0; r < rows; ++r) {
    float* a = statistics + 4 * r;
    const float* b = other + 4 * r;
    const float top = b[0] > a[0] ? b[0] : a[0];
    const float scale_a = a[0] == top ? 1.0f : exp(a[0] - top), scale_b = b[0] == top ? 1.0f : exp(b[0] - top);
    a[1] = a[1] * scale_a + b[1] * scale_b;
    a[2] = a[2] * scale_a + b[2] * scale_b;
    a[3] = a[3] == minus_infinity ? b[3] : a[3];
    a[0] = top;
  }
}

void finish_statistics(float* logprob, float* entropy, float* lse, const float* statistics, const std::int32_t* targets, Index rows) {
  const FlushSubnormals flush;
  for (Index r = 0; r < rows; ++r) {
    const float* s = statistics + 4 * r;
    const bool real = targets[r] >= 0;
    const double log_sum = s[0] + std::log(static_cast<double>(s[1]));
    lse[r] = real ? static_cast<float>(log_sum) : 0.0f;
    logprob[r] = real ? static_cast<float>(s[3] - log_sum) : 0.0f;
    entropy[r] = real ? static_cast<float>(log_sum - static_cast<double>(s[2]) / s[1]) : 0.0f;
  }
}

void logit_gradient(const LogitGradient& head, Index rows, Index columns) {
  const float inverse = 1.0f / head.temperature;
  parallel_rows(rows, std::max<Index>(columns, 1), [=](Index r) {
    float* row = head.logits + r * columns;
    const std::int32_t target = head.targets[r];
    if (target < 0) {
      std::fill_n(row, columns, 0.0f);
      return;
    }
    const Lanes lse = splat(head.lse[r]), inverse_temperature = splat(inverse);
    const float dlogprob = head.dlogprob[r], dentropy = head.dentropy[r];
    const Lanes entropy_minus_lse = splat(head.entropy[r] - head.lse[r]);
    const Lanes from_logprob = splat(-dlogprob * inverse), from_entropy = splat(-dentropy * inverse);
    for (Index c = 0; c < columns; c += lanes) {
      const Lanes l = load(row + c, columns - c) * inverse_temperature;
      const Lanes p = exp(l - lse);
      store(row + c, p * fma(from_entropy, l + entropy_minus_lse, from_logprob), columns - c);
    }
    if (in_shard(target, head.first, columns)) row[target - head.first] += dlogprob * inverse;
  });
}

void value_forward(float* values, const float* hidden, Numbers w, Numbers b, Index rows, Index columns) {
  const float bias = std::visit([](const auto* first) { return widened(*first); }, b);
  const auto forward = [=](const auto* weights) {
    parallel_rows(rows, columns, [=](Index r) {
      Lanes total{};
      for (Index c = 0; c < columns; c += lanes)
        total = fma(load(hidden + r * columns + c, columns - c), load(weights + c, columns - c), total);
      values[r] = sum(total) + bias;
    });
  };
  std::visit(forward, w);
}

void value_backward(float* dhidden, float* dw, float* db, const float* dvalues, const float* hidden, Numbers w, bool add, Index rows,
                    Index columns) {
  const auto input = [=](const auto* weights) {
    parallel_rows(rows, columns, [=](Index r) {
      for (Index c = 0; c < columns; c += lanes)
        store(dhidden + r * columns + c, splat(dvalues[r]) * load(weights + c, columns - c), columns - c);
    });
  };
  std::visit(input, w);
  constexpr Index strip = 4 * lanes;
  parallel_tiles(tiles_of(columns, strip), rows * columns > serial_elements, [=](Index tile) {
    for (Index c = tile * strip; c < std::min(columns, (tile + 1) * strip); c += lanes) {
      Lanes total = add ? load(dw + c, columns - c) : Lanes{};
      for (Index first = 0; first < rows; first += row_block) {
        Lanes block{};
        for (Index r = first; r < std::min(rows, first + row_block); ++r)
          block = fma(splat(dvalues[r]), load(hidden + r * columns + c, columns - c), block);
        total += block;
      }
      store(dw + c, total, columns - c);
    }
  });
  const FlushSubnormals flush;
  float total = add ? db[0] : 0;
  for (Index first = 0; first < rows; first += row_block) {
    float block = 0;
    for (Index r = first; r < std::min(rows, first + row_block); ++r) block += dvalues[r];
    total += block;
  }
  db[0] = total;
}

}  // namespace collimate::kernels::cpu
