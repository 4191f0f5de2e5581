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

void rotary_table(float* table, const double* frequencies, Index rows, Index size) {
  const Index half = size / 2;
  parallel_rows(rows, size, [=](Index r) {
    for (Index i = 0; i < half; ++i) {
      const double angle = static_cast<double>(r) * frequencies[i];
      table[r * size + i] = static_cast<float>(std::cos(angle));
      table[r * size + half + i] = static_cast<float>(std::sin(angle));
    }
  });
}

}  // namespace collimate::kernels::cpu
