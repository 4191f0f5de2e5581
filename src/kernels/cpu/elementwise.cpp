#include "kernels/cpu/elementwise.hpp"

#include <algorithm>

#include "kernels/cpu/lanes.hpp"
#include "kernels/cpu/parallel.hpp"

namespace collimate::kernels::cpu {
namespace {

using Index = std::int64_t;

constexpr float gelu_scale = 1.5957691216057308f;  // 2 sqrt(2/pi)
constexpr float gelu_cubic = 0.044715f;

/// 2 sqrt(2/pi) (x + 0.044715 x^3): GELU is x sigmoid of it, because (1 + tanh(u)) / 2 = sigmoid(2u).
Lanes gelu_argument(Lanes x) { return splat(gelu_scale) * fma(splat(gelu_cubic) * x * x, x, x); }

}  // namespace

void add(float* y, const float* a, const float* b, Index count) {
  parallel_elements(count, [=](Index begin, Index end) {
    for (Index i = begin; i < end; i += lanes) store(y + i, load(a + i, end - i) + load(b + i, end - i), end - i);
  });
}

void add_bias(float* y, const float* bias, Index rows, Index columns) {
  parallel_rows(rows, columns, [=](Index row) {
    for (Index c = 0; c < columns; ++c) y[row * columns + c] += bias[c];
  });
}

void gelu_forward(float* y, const float* x, Index count) {
  parallel_elements(count, [=](Index begin, Index end) {
    for (Index i = begin; i < end; i += lanes) {
      const Lanes v = load(x + i, end - i);
      store(y + i, v * sigmoid(gelu_argument(v)), end - i);
    }
  });
}

// dy/dx = s + x s (1 - s) u'  with s = sigmoid(u), u' = 2 sqrt(2/pi) (1 + 3 * 0.044715 x^2)
void gelu_backward(float* dx, const float* dy, const float* x, Index count) {
  parallel_elements(count, [=](Index begin, Index end) {
    for (Index i = begin; i < end; i += lanes) {
      const Lanes v = load(x + i, end - i);
      const Lanes s = sigmoid(gelu_argument(v));
      const Lanes slope = splat(gelu_scale) * fma(splat(3 * gelu_cubic) * v, v, splat(1.0f));
      const Lanes derivative = fma(v * slope, s * (splat(1.0f) - s), s);
      store(dx + i, load(dy + i, end - i) * derivative, end - i);
    }
  });
}

void swiglu_forward(float* y, const float* gate_up, Index rows, Index columns) {
  parallel_rows(rows, columns, [=](Index r) {
    const float* gate = gate_up + 2 * r * columns;
    const float* up = gate + columns;
    for (Index c = 0; c < columns; c += lanes) {
      const Index n = columns - c;
      const Lanes g = load(gate + c, n);
      store(y + r * columns + c, g * sigmoid(g) * load(up + c, n), n);
    }
  });
}

// d silu(g)/dg = s + g s (1 - s)
void swiglu_backward(float* dgate_up, const float* dy, const float* gate_up, Index rows, Index columns) {
  parallel_rows(rows, columns, [=](Index r) {
    const float* gate = gate_up + 2 * r * columns;
    float* dgate = dgate_up + 2 * r * columns;
    for (Index c = 0; c < columns; c += lanes) {
      const Index n = columns - c;
      const Lanes g = load(gate + c, n), up = load(gate + columns + c, n), d = load(dy + r * columns + c, n);
      const Lanes s = sigmoid(g);
      store(dgate + c, d * up * fma(g * s, splat(1.0f) - s, s), n);
      store(dgate + columns + c, d * (g * s), n);
    }
  });
}

namespace {

/// Four words of Philox for 16 neighbouring counters at once, equal to RandomKey::words(a, b, c + lane).
struct Words {
  std::uint32_t of[4][lanes];
};

/// For each of 16 lanes: the high and low half of multiplier * x, exclusive-ored into the other words, as philox4x32 does.
void philox_round(Words& w, std::uint32_t key0, std::uint32_t key1) {
  constexpr std::uint64_t multiplier0 = 0xD2511F53, multiplier1 = 0xCD9E8D57;
  for (int j = 0; j < lanes; ++j) {
    const std::uint64_t product0 = multiplier0 * w.of[0][j], product1 = multiplier1 * w.of[2][j];
    w.of[0][j] = static_cast<std::uint32_t>(product1 >> 32) ^ w.of[1][j] ^ key0;
    w.of[1][j] = static_cast<std::uint32_t>(product1);
    w.of[2][j] = static_cast<std::uint32_t>(product0 >> 32) ^ w.of[3][j] ^ key1;
    w.of[3][j] = static_cast<std::uint32_t>(product0);
  }
}

Words words16(const RandomKey& key, std::uint64_t a, std::uint32_t b, std::uint32_t c) {
  Words w;
  const std::uint32_t tag = static_cast<std::uint32_t>(key.purpose()) << 16 ^ static_cast<std::uint32_t>(a >> 32);
  for (int j = 0; j < lanes; ++j) {
    w.of[0][j] = static_cast<std::uint32_t>(a);
    w.of[1][j] = b;
    w.of[2][j] = c + static_cast<std::uint32_t>(j);
    w.of[3][j] = tag;
  }
  auto key0 = static_cast<std::uint32_t>(key.seed()), key1 = static_cast<std::uint32_t>(key.seed() >> 32);
  for (int round = 0; round < 10; ++round, key0 += 0x9E3779B9, key1 += 0xBB67AE85) philox_round(w, key0, key1);
  return w;
}

}  // namespace

void dropout(float* y, const float* x, double probability, const RandomKey& key, const std::int64_t* samples, const std::int32_t* positions,
             std::uint32_t site, Index rows, Index columns) {
  const auto threshold = static_cast<std::uint64_t>(probability * 0x1.0p32);  // a word below it drops its element
  const float scale = static_cast<float>(1.0 / (1.0 - probability));
  constexpr Index piece = 4 * lanes;  // columns per 16 Philox calls
  parallel_rows(rows, columns, [=, &key](Index r) {
    for (Index begin = 0; begin < columns; begin += piece) {
      const Words words = words16(key, static_cast<std::uint64_t>(samples[r]), static_cast<std::uint32_t>(positions[r]),
                                  site << 18 | static_cast<std::uint32_t>(begin / 4));
      const float* in = x + r * columns + begin;
      float* out = y + r * columns + begin;
      const Index count = std::min(piece, columns - begin);
      for (Index i = 0; i < count; ++i) out[i] = words.of[i % 4][i / 4] >= threshold ? in[i] * scale : 0.0f;
    }
  });
}

}  // namespace collimate::kernels::cpu
