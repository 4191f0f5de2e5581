#include <cmath>

#include "kernels/cpu/attention.hpp"
#include "kernels/cpu/lanes.hpp"
#include "kernels/cpu/parallel.hpp"

namespace collimate::kernels::cpu {

using Index = std::int64_t;

void rotary(float* qkv, const std::int32_t* positions, const float* table, const Heads& heads, bool inverse, Index rows) {
  const Index half = heads.size / 2, rotated = heads.query + heads.key_value;
  parallel_rows(rows, heads.columns(), [=](Index r) {
    if (positions[r] < 0) return;
    const float* cosines = table + positions[r] * heads.size;
    const float* sines = cosines + half;
    for (Index h = 0; h < rotated; ++h) {
      float* a = qkv + r * heads.columns() + h * heads.size;
      float* b = a + half;
      for (Index i = 0; i < half; i += lanes) {
        const Index n = half - i;
        const Lanes c = load(cosines + i, n), s = inverse ? -load(sines + i, n) : load(sines + i, n);
        const Lanes x = load(a + i, n), y = load(b + i, n);
        store(a + i, x * c - y * s, n);
        store(b + i, y * c + x * s, n);
      }
    }
  });
}

}  // namespace collimate::kernels::cpu

namespace collimate::kernels {

void rotary_table(std::span<float> rows, std::int64_t first, std::span<const double> frequencies) {
  const std::int64_t half = std::ssize(frequencies);
  require(half > 0 && std::ssize(rows) % (2 * half) == 0, "rotary_table was given room for {} numbers, and a row has {}", rows.size(), 2 * half);
  cpu::parallel_rows(std::ssize(rows) / (2 * half), 2 * half, [=](std::int64_t r) {
    for (std::int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(first + r) * frequencies[i];
      rows[r * 2 * half + i] = static_cast<float>(std::cos(angle));
      rows[r * 2 * half + half + i] = static_cast<float>(std::sin(angle));
    }
  });
}

}  // namespace collimate::kernels
