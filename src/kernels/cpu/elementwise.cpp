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

using Words = Wide<std::uint64_t>::Register;  // 32-bit words, each with room for a product
constexpr int counters = Wide<std::uint64_t>::per_register;

/// w * factor; g++ would multiply the upper halves of the words too, which are zero.
template <class Register>
Register product(Register w, std::uint32_t factor) {
  if constexpr (one_register)
    return reinterpret_cast<Register>(_mm512_maskz_mul_epu32(0xff, reinterpret_cast<__m512i>(w), _mm512_set1_epi64(factor)));
  else
    return reinterpret_cast<Register>(_mm256_mul_epu32(reinterpret_cast<__m256i>(w), _mm256_set1_epi64x(factor)));
}

/// RandomKey::words(a, b, c + lane) for as many counters at once as a register holds: four columns each.
struct Philox {
  Words w0, w1, w2, w3;

  Philox(const RandomKey& key, std::uint64_t a, std::uint32_t b, std::uint32_t c) {
    Words lane{};
    for (int i = 0; i < counters; ++i) lane[i] = i;
    const std::uint64_t tag = static_cast<std::uint32_t>(key.purpose()) << 16 ^ static_cast<std::uint32_t>(a >> 32);
    w0 = Words{} + static_cast<std::uint32_t>(a);
    w1 = Words{} + b;
    w2 = Words{} + c + lane;
    w3 = Words{} + tag;
    auto key0 = static_cast<std::uint32_t>(key.seed()), key1 = static_cast<std::uint32_t>(key.seed() >> 32);
    for (int round = 0; round < 10; ++round, key0 += 0x9E3779B9, key1 += 0xBB67AE85) {
      const Words product0 = product(w0, 0xD2511F53), product1 = product(w2, 0xCD9E8D57);
      w0 = product1 >> 32 ^ w1 ^ key0;
      w1 = product1 & 0xFFFFFFFF;
      w2 = product0 >> 32 ^ w3 ^ key1;
      w3 = product0 & 0xFFFFFFFF;
    }
  }
  /// The words of the first or the second half of the counters, in the order of their columns.
  template <int half>
  WordLanes::Register columns() const {
    const Words low = w0 | w1 << 32, high = w2 | w3 << 32;
    Words from{};
    for (int i = 0; i < counters; ++i) from[i] = i % 2 * counters + half * counters / 2 + i / 2;
    return reinterpret_cast<WordLanes::Register>(__builtin_shuffle(low, high, from));
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
      const IntLanes stays = each<std::int32_t>([=](auto word) { return word >= threshold; }, words);
      store(y + r * columns + c, select(stays, kept, Lanes{}), columns - c);
    };
    for (Index c = 0; c < columns; c += 4 * counters) {
      const Philox drawn(key, static_cast<std::uint64_t>(samples[r]), static_cast<std::uint32_t>(positions[r]),
                         site << 18 | static_cast<std::uint32_t>((first_column + c) / 4));
      WordLanes words[2 / parts];
      words[0].part[0] = drawn.columns<0>();
      words[1 / parts].part[1 % parts] = drawn.columns<1>();
#pragma GCC unroll 2
      for (int i = 0; i < 2 / parts; ++i) apply(words[i], c + i * lanes);
    }
  });
}

}  // namespace collimate::kernels::cpu
