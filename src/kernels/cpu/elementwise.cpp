#include "kernels/cpu/elementwise.hpp"

#include <algorithm>

#include "kernels/cpu/lanes.hpp"
#include "kernels/cpu/parallel.hpp"

namespace collimate::kernels::cpu {
namespace {

using Index = std::int64_t;

constexpr float gelu_scale = 1.5957691216057308f;  // 2 sqrt(2/pi)
constexpr float gelu_cubic = 0.044715f;

template <class To, class From>
void cast_elements(To* to, const From* from, Index count) {
  parallel_elements(count, [=](Index begin, Index end) {
    for (Index i = begin; i < end; i += lanes) store(to + i, load(from + i, end - i), end - i);
  });
}

/// 2 sqrt(2/pi) (x + 0.044715 x^3): GELU is x sigmoid of it, because (1 + tanh(u)) / 2 = sigmoid(2u).
Lanes gelu_argument(Lanes x) { return splat(gelu_scale) * fma(splat(gelu_cubic) * x * x, x, x); }

}  // namespace

void cast(float* to, const BFloat16* from, Index count) { cast_elements(to, from, count); }
void cast(BFloat16* to, const float* from, Index count) { cast_elements(to, from, count); }

void add(float* y, const float* a, const float* b, Index count) {
  parallel_elements(count, [=](Index begin, Index end) {
    for (Index i = begin; i < end; i += lanes) store(y + i, load(a + i, end - i) + load(b + i, end - i), end - i);
  });
}

void add(std::int32_t* y, const std::int32_t* a, const std::int32_t* b, Index count) {
  parallel_elements(count, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) y[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(a[i]) + static_cast<std::uint32_t>(b[i]));
  });
}

void add_bias(float* y, Numbers bias, Index rows, Index columns) {
  const auto add = [=](const auto* terms) {
    parallel_rows(rows, columns, [=](Index row) {
      for (Index c = 0; c < columns; ++c) y[row * columns + c] += widened(terms[c]);
    });
  };
  std::visit(add, bias);
}

void copy_columns(float* y, Index y_stride, const float* x, Index x_stride, Index rows, Index columns) {
  parallel_rows(rows, columns, [=](Index row) { std::copy_n(x + row * x_stride, columns, y + row * y_stride); });
}

void add_columns(float* y, Index y_stride, const float* x, Index x_stride, Index rows, Index columns) {
  parallel_rows(rows, columns, [=](Index row) {
    for (Index c = 0; c < columns; ++c) y[row * y_stride + c] += x[row * x_stride + c];
  });
}

void scale(float* y, float factor, Index count) {
  parallel_elements(count, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) y[i] *= factor;
  });
}

void gelu_forward(Results y, Numbers x, Index count) {
  const auto forward = [=](auto* to, const auto* from) {
    parallel_elements(count, [=](Index begin, Index end) {
      for (Index i = begin; i < end; i += lanes) {
        const Lanes v = load(from + i, end - i);
        store(to + i, v * sigmoid(gelu_argument(v)), end - i);
      }
    });
  };
  std::visit(forward, y, x);
}

// dy/dx = s + x s (1 - s) u'  with s = sigmoid(u), u' = 2 sqrt(2/pi) (1 + 3 * 0.044715 x^2)
void gelu_backward(Results dx, Numbers dy, Numbers x, Index count) {
  const auto backward = [=](auto* to, const auto* gradient, const auto* from) {
    parallel_elements(count, [=](Index begin, Index end) {
      for (Index i = begin; i < end; i += lanes) {
        const Lanes v = load(from + i, end - i);
        const Lanes s = sigmoid(gelu_argument(v));
        const Lanes slope = splat(gelu_scale) * fma(splat(3 * gelu_cubic) * v, v, splat(1.0f));
        const Lanes derivative = fma(v * slope, s * (splat(1.0f) - s), s);
        store(to + i, load(gradient + i, end - i) * derivative, end - i);
      }
    });
  };
  std::visit(backward, dx, dy, x);
}

void swiglu_forward(Results y, Numbers gate_up, Index rows, Index columns) {
  const auto forward = [=](auto* to, const auto* from) {
    parallel_rows(rows, columns, [=](Index r) {
      const auto* gate = from + 2 * r * columns;
      const auto* up = gate + columns;
      for (Index c = 0; c < columns; c += lanes) {
        const Index n = columns - c;
        const Lanes g = load(gate + c, n);
        store(to + r * columns + c, g * sigmoid(g) * load(up + c, n), n);
      }
    });
  };
  std::visit(forward, y, gate_up);
}

// d silu(g)/dg = s + g s (1 - s)
void swiglu_backward(Results dgate_up, Numbers dy, Numbers gate_up, Index rows, Index columns) {
  const auto backward = [=](auto* to, const auto* gradient, const auto* from) {
    parallel_rows(rows, columns, [=](Index r) {
      const auto* gate = from + 2 * r * columns;
      auto* dgate = to + 2 * r * columns;
      for (Index c = 0; c < columns; c += lanes) {
        const Index n = columns - c;
        const Lanes g = load(gate + c, n), up = load(gate + columns + c, n), d = load(gradient + r * columns + c, n);
        const Lanes s = sigmoid(g);
        store(dgate + c, d * up * fma(g * s, splat(1.0f) - s, s), n);
        store(dgate + columns + c, d * (g * s), n);
      }
    });
  };
  std::visit(backward, dgate_up, dy, gate_up);
}

namespace {

using Words = std::uint64_t __attribute__((vector_size(64)));  // eight 32-bit words, each with room for a product
using WordLanes = std::uint32_t __attribute__((vector_size(64)));
constexpr Index dropout_columns = 32;  ///< drawn at once: four columns for each of eight counters

/// RandomKey::words(a, b, c + lane) for eight lanes at once.
struct Philox8 {
  Words w0, w1, w2, w3;

  Philox8(const RandomKey& key, std::uint64_t a, std::uint32_t b, std::uint32_t c) {
    const Words zero{}, lane{0, 1, 2, 3, 4, 5, 6, 7};
    const std::uint64_t tag = static_cast<std::uint32_t>(key.purpose()) << 16 ^ static_cast<std::uint32_t>(a >> 32);
    w0 = zero + static_cast<std::uint32_t>(a);
    w1 = zero + b;
    w2 = zero + c + lane;
    w3 = zero + tag;
    auto key0 = static_cast<std::uint32_t>(key.seed()), key1 = static_cast<std::uint32_t>(key.seed() >> 32);
    for (int round = 0; round < 10; ++round, key0 += 0x9E3779B9, key1 += 0xBB67AE85) {
      const Words product0 = w0 * 0xD2511F53, product1 = w2 * 0xCD9E8D57;
      w0 = product1 >> 32 ^ w1 ^ key0;
      w1 = product1 & 0xFFFFFFFF;
      w2 = product0 >> 32 ^ w3 ^ key1;
      w3 = product0 & 0xFFFFFFFF;
    }
  }
  /// The 32 words in the order of their columns.
  void columns(WordLanes& first, WordLanes& second) const {
    const Words low = w0 | w1 << 32, high = w2 | w3 << 32;
    first = reinterpret_cast<WordLanes>(__builtin_shufflevector(low, high, 0, 8, 1, 9, 2, 10, 3, 11));
    second = reinterpret_cast<WordLanes>(__builtin_shufflevector(low, high, 4, 12, 5, 13, 6, 14, 7, 15));
  }
};

}  // namespace

void dropout(float* y, const float* x, double probability, const RandomKey& key, const std::int64_t* samples, const std::int32_t* positions,
             std::uint32_t site, Index first_column, Index rows, Index columns) {
  const auto threshold = static_cast<std::uint32_t>(probability * 0x1.0p32);  // a word below it drops its element
  const Lanes scale = splat(static_cast<float>(1.0 / (1.0 - probability)));
  parallel_rows(rows, columns, [=, &key](Index r) {
    const auto apply = [&](WordLanes words, Index c) {
      if (c >= columns) return;
      const Lanes kept = load(x + r * columns + c, columns - c) * scale;
      store(y + r * columns + c, words >= threshold ? kept : Lanes{}, columns - c);
    };
    for (Index c = 0; c < columns; c += dropout_columns) {
      WordLanes first, second;
      Philox8(key, static_cast<std::uint64_t>(samples[r]), static_cast<std::uint32_t>(positions[r]),
              site << 18 | static_cast<std::uint32_t>((first_column + c) / 4))
          .columns(first, second);
      apply(first, c);
      apply(second, c + lanes);
    }
  });
}

}  // namespace collimate::kernels::cpu
