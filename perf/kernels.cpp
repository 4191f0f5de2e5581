// Speed of every kernel at the shapes of GPT-2 small and of the quickstart, beside the limits of the machine, and what a training
// step of GPT-2 small is made of. Usage: collimate_perf_kernels [seconds per kernel, 0.2 unless told]
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <vector>

#include "collimate/kernels/attention.hpp"
#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/embedding.hpp"
#include "collimate/kernels/head.hpp"
#include "collimate/kernels/norm.hpp"
#include "collimate/kernels/optimizer.hpp"
#include "collimate/kernels/rows.hpp"
#include "kernels/cpu/lanes.hpp"

using namespace collimate;
using namespace collimate::kernels;
using Index = std::int64_t;

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Least seconds of a call, from at least three calls over about `budget` seconds after one to warm up: on a shared machine the
/// least is what the kernel needs.
double time_of(const std::function<void()>& call, double budget) {
  call();
  double least = 1e300;
  int calls = 0;
  for (const double end = now() + budget; calls < 3 || now() < end; ++calls) {
    const double start = now();
    call();
    least = std::min(least, now() - start);
  }
  return least;
}

double fma_peak() {
  constexpr int chains = cpu::one_register ? 16 : 6;  // they hide the latency of two units, and fit into the registers
  constexpr Index turns = 4000000;
  double best = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const double start = now();
#pragma omp parallel
    {
      cpu::Lanes x[chains];
      const cpu::Lanes a = cpu::in_register(cpu::splat(0.999f)), b = cpu::in_register(cpu::splat(0.001f));
      for (int i = 0; i < chains; ++i) x[i] = cpu::splat(static_cast<float>(i));
      for (Index turn = 0; turn < turns; ++turn)
#pragma GCC unroll 16
        for (int i = 0; i < chains; ++i) x[i] = cpu::fma(x[i], a, b);
      for (int i = 1; i < chains; ++i) x[0] += x[i];
      asm volatile("" : : "x"(x[0].part[0]), "x"(x[0].part[cpu::parts - 1]));
    }
    best = std::max(best, 2.0 * cpu::lanes * chains * static_cast<double>(turns) * omp_get_max_threads() / (now() - start) * 1e-9);
  }
  return best;
}

class Bench {
 public:
  explicit Bench(double budget) : budget_(budget) {
    peak_ = fma_peak();
    constexpr Index count = 48 << 20;
    const Tensor a = make({count}), b = make({count}), c = make({count});
    stream_ = 12.0 * count / time_of([&] { add(c, a, b, stream()); }, 1.0) * 1e-9;
    fmt::print("{} threads: {:.0f} GFLOP/s of fused multiply-adds, {:.1f} GB/s streaming (c = a + b, 3 x {} MiB)\n\n",
               omp_get_max_threads(), peak_, stream_, count >> 18);
    buffers_.clear();
  }
  Tensor make(Shape shape, DType dtype = DType::f32) {
    buffers_.emplace_back(*device_, static_cast<std::size_t>(shape.count()) * size_of(dtype), Memory::device);
    const Tensor t(buffers_.back().data(), dtype, shape, *device_);
    if (dtype == DType::f32)
      for (Index i = 0; i < t.count(); ++i) t.as<float>()[i] = static_cast<float>((i * 2654435761u >> 8 & 1023) - 512) * 0.002f;
    return t;
  }
  void clear() { buffers_.clear(); }
  Stream& stream() { return device_->stream(); }
  double flops(const std::string& name, double flop, const std::function<void()>& call) {
    const double seconds = time_of(call, budget_), rate = flop / seconds * 1e-9;
    fmt::print("{:<58} {:>10.3f} ms {:>8.1f} GFLOP/s  {:>4.0f} % of peak\n", name, seconds * 1e3, rate, 100 * rate / peak_);
    return seconds;
  }
  double bytes(const std::string& name, double bytes, const std::function<void()>& call) {
    const double seconds = time_of(call, budget_), rate = bytes / seconds * 1e-9;
    fmt::print("{:<58} {:>10.3f} ms {:>8.1f} GB/s     {:>4.0f} % of streaming\n", name, seconds * 1e3, rate, 100 * rate / stream_);
    return seconds;
  }

  /// Indices number(0) ... number(count - 1).
  Ragged index(Index count, const std::function<Index(Index)>& number) {
    const Tensor t = make({count}, DType::i32);
    for (Index i = 0; i < count; ++i) t.as<std::int32_t>()[i] = static_cast<std::int32_t>(number(i));
    return {{t.as<std::int32_t>(), static_cast<std::size_t>(count)}, t};
  }

 private:
  std::unique_ptr<Device> device_ = make_cpu_device();
  std::vector<Buffer> buffers_;
  double budget_, peak_, stream_;
};

struct Model {
  const char* name;
  Index rows, width, query, key_value, head_size, mlp, layers, vocabulary, sample;
  bool gpt2;
};

/// Seconds of one layer (or of the head) in matrix products and in everything else.
struct Cost {
  double products = 0, rest = 0;
};

void linear(Bench& bench, Cost& cost, const char* name, Index rows, Index n, Index k) {
  const Tensor x = bench.make({rows, k}), w = bench.make({n, k}), y = bench.make({rows, n}), dx = bench.make({rows, k}),
               dw = bench.make({n, k});
  const double flop = 2.0 * static_cast<double>(rows * n * k);
  const auto label = [&](const char* what) { return fmt::format("{} {} [{} x {} x {}]", name, what, rows, n, k); };
  cost.products += bench.flops(label("forward"), flop, [&] { linear_forward(y, x, w, {}, Write::replace, bench.stream()); });
  cost.products += bench.flops(label("input"), flop, [&] { linear_backward_input(dx, y, w, Write::replace, bench.stream()); });
  cost.products += bench.flops(label("weight"), flop, [&] { linear_backward_weight(dw, y, x, Write::replace, bench.stream()); });
  bench.clear();
}

void attention(Bench& bench, Cost& cost, const Model& m) {
  const Heads heads{.query = m.query, .key_value = m.key_value, .size = m.head_size, .group = m.query / m.key_value};
  const Index samples = m.rows / m.sample;
  const Tensor qkv = bench.make({m.rows, heads.columns()}), dqkv = bench.make(qkv.shape()),
               out = bench.make({m.rows, m.query * m.head_size}), dout = bench.make(out.shape()), lse = bench.make({m.rows, m.query}),
               scratch = bench.make(lse.shape()), table = bench.make({m.sample, m.head_size});
  const Ragged offsets = bench.index(samples + 1, [&](Index s) { return s * m.sample; }),
               positions = bench.index(m.rows, [&](Index r) { return r % m.sample; });
  // Only what a causal mask lets through counts: two products forward, five backward.
  const double pairs = static_cast<double>(samples * m.query * m.sample * (m.sample + 1)) / 2,
               flop = 2 * pairs * static_cast<double>(m.head_size);
  cost.rest += bench.flops(fmt::format("attention forward ({} x {} tokens)", samples, m.sample), 2 * flop,
                           [&] { attention_forward(out, lse, qkv, offsets, heads, bench.stream()); });
  cost.rest += bench.flops("attention backward", 5 * flop,
                           [&] { attention_backward(dqkv, dout, out, lse, qkv, offsets, scratch, heads, bench.stream()); });
  if (!m.gpt2)
    cost.rest += 2 * bench.bytes("rotary", 8.0 * static_cast<double>(qkv.count()),
                                 [&] { rotary(qkv, positions, table, heads, false, bench.stream()); });
  bench.clear();
}

void norms(Bench& bench, Cost& cost, const Model& m) {
  const Tensor x = bench.make({m.rows, m.width}), y = bench.make(x.shape()), dy = bench.make(x.shape()), dx = bench.make(x.shape());
  const Tensor gain = bench.make({m.width}), bias = bench.make({m.width}), mean = bench.make({m.rows}), rstd = bench.make({m.rows});
  const Tensor dgain = bench.make({m.width}), dbias = bench.make({m.width});
  const double size = 4.0 * static_cast<double>(x.count());
  auto& stream = bench.stream();
  if (m.gpt2) {
    cost.rest += 2 * bench.bytes("layer norm forward", 2 * size, [&] { layer_norm_forward(y, mean, rstd, x, gain, bias, 1e-5f, stream); });
    cost.rest += 2 * bench.bytes("layer norm backward", 4 * size, [&] {
      layer_norm_backward(dx, dgain, dbias, dy, x, gain, mean, rstd, Write::add, Write::replace, stream);
    });
  } else {
    cost.rest += 2 * bench.bytes("rms norm forward", 2 * size, [&] { rms_norm_forward(y, rstd, x, gain, 1e-5f, stream); });
    cost.rest +=
        2 * bench.bytes("rms norm backward", 4 * size, [&] { rms_norm_backward(dx, dgain, dy, x, gain, rstd, Write::add, Write::replace, stream); });
  }
  cost.rest += 2 * bench.bytes("add (residual)", 3 * size, [&] { add(y, x, dy, stream); });
  bench.clear();
}

void activation(Bench& bench, Cost& cost, const Model& m) {
  const Index inner = m.gpt2 ? m.mlp : 2 * m.mlp;
  const Tensor x = bench.make({m.rows, inner}), y = bench.make({m.rows, m.mlp}), dx = bench.make(x.shape()), dy = bench.make(y.shape());
  const double in = 4.0 * static_cast<double>(x.count()), out = 4.0 * static_cast<double>(y.count());
  auto& stream = bench.stream();
  if (m.gpt2) {
    cost.rest += bench.bytes("gelu forward", in + out, [&] { gelu_forward(y, x, stream); });
    cost.rest += bench.bytes("gelu backward", 2 * in + out, [&] { gelu_backward(dx, dy, x, stream); });
    const Tensor dbias = bench.make({m.mlp});
    cost.rest += 3 * bench.bytes("bias gradient", out, [&] { linear_backward_bias(dbias, dy, Write::replace, stream); });
  } else {
    cost.rest += bench.bytes("swiglu forward", in + out, [&] { swiglu_forward(y, x, stream); });
    cost.rest += bench.bytes("swiglu backward", 2 * in + out, [&] { swiglu_backward(dx, dy, x, stream); });
  }
  const Tensor wide = bench.make({m.rows, m.width}), samples = bench.make({m.rows}, DType::i64),
               positions = bench.make({m.rows}, DType::i32);
  bench.bytes("dropout (not in the sum)", 8.0 * static_cast<double>(wide.count()),
              [&] { dropout(wide, wide, 0.1, RandomKey(1, Purpose::dropout), samples, positions, 0, stream); });
  bench.clear();
}

void head(Bench& bench, Cost& cost, const Model& m) {
  const Tensor logits = bench.make({row_block, m.vocabulary}), statistics = bench.make({row_block, 4}),
               targets = bench.make({row_block}, DType::i32);
  const Tensor sums = bench.make({row_block, 2}, DType::f64);
  const Tensor lse = bench.make({row_block}), entropy = bench.make({row_block}), d = bench.make({row_block});
  const double size = 4.0 * static_cast<double>(logits.count()), blocks = static_cast<double>(m.rows) / row_block;
  for (Index r = 0; r < row_block; ++r) lse.as<float>()[r] = 11.0f;
  auto& stream = bench.stream();
  cost.rest +=
      blocks * bench.bytes("logit statistics (256 rows)", size, [&] { logit_statistics(statistics, sums, logits, targets, 0, 1.0f, Write::replace, stream); });
  cost.rest += blocks * bench.bytes("logit gradient (256 rows)", 2 * size, [&] {
    logit_gradient(logits, lse, entropy, targets, d, d, 0, 1.0f, stream);
  });
  const Tensor table = bench.make({m.vocabulary, m.width}), y = bench.make({m.rows, m.width}), tokens = bench.make({m.rows}, DType::i32);
  for (Index r = 0; r < m.rows; ++r) tokens.as<std::int32_t>()[r] = static_cast<std::int32_t>(r * 7919 % m.vocabulary);
  const double moved = 8.0 * static_cast<double>(y.count());
  cost.rest += bench.bytes("embedding forward", moved, [&] { embedding_forward(y, table, tokens, 0, stream); });
  cost.rest += bench.bytes("embedding backward", 1.5 * moved, [&] { embedding_backward(table, y, tokens, 0, stream); });
  bench.clear();
}

double optimizer(Bench& bench, Index parameters) {
  const Index count = parameters / chunk_block * chunk_block;
  const Tensor value = bench.make({count}), gradient = bench.make({count}), m = bench.make({count}), v = bench.make({count});
  std::fill_n(v.as<float>(), count, 1.0f);
  const double size = 4.0 * static_cast<double>(count);
  const double seconds = bench.bytes(fmt::format("adamw ({:.1f} M)", 1e-6 * static_cast<double>(count)), 7 * size,
                                     [&] { adamw(value, gradient, m, v, {.rate = 1e-4}, bench.stream()); });
  const Tensor sums = bench.make({count / chunk_block}, DType::f64), hash = bench.make({1}, DType::u64);
  const double squares = bench.bytes("block squares", size, [&] { block_squares(sums, value, bench.stream()); });
  bench.bytes("element hash (not in the sum)", size, [&] { element_hash(hash, value, 0, bench.stream()); });
  bench.clear();
  return seconds + squares;
}

void decode(Bench& bench, const Model& m) {
  for (const Index rows : {1, 4, 8, 96}) {
    const auto product = [&](const char* name, Index n, Index k) {
      const Index copies = std::max<Index>(1, (128 << 20) / (4 * n * k));  // a model's layers follow each other: nothing stays in the cache
      const bool small = m.width < 512;
      const Tensor x = bench.make({rows, k}), w = bench.make({small ? 1 : copies, n, k}), y = bench.make({rows, n});
      Index copy = 0;
      const auto call = [&] { linear_decode(y, x, w.slice(copy++ % w[0], 1).reshape({n, k}), {}, bench.stream()); };
      const auto label = fmt::format("decode {} [{} x {} x {}]", name, rows, n, k);
      if (small || rows > 8)
        bench.flops(label, 2.0 * static_cast<double>(rows * n * k), call);
      else
        bench.bytes(label, 4.0 * static_cast<double>(n * k), call);
      bench.clear();
    };
    const Index qkv = (m.query + 2 * m.key_value) * m.head_size;
    product("qkv", qkv, m.width);
    product("down", m.width, m.mlp);
    product("head", m.vocabulary, m.width);
    const Heads heads{.query = m.query, .key_value = m.key_value, .size = m.head_size, .group = m.query / m.key_value};
    const Index capacity = std::max<Index>(m.sample, 32);
    const Tensor token = bench.make({rows, qkv}), keys = bench.make({rows, capacity, m.key_value * m.head_size}),
                 values = bench.make(keys.shape());
    const Ragged slots = bench.index(rows, [](Index b) { return b; }), lengths = bench.index(rows, [&](Index) { return capacity - 1; });
    const Tensor out = bench.make({rows, m.query * m.head_size});
    bench.bytes(fmt::format("decode attention, {} sequences of {}", rows, capacity), 8.0 * static_cast<double>(keys.count()),
                [&] { attention_decode(out, token, keys, values, slots, lengths, heads, bench.stream()); });
    const Tensor logits = bench.make({rows, m.vocabulary}), tokens = bench.make({rows}, DType::i32), logprobs = bench.make({rows});
    const Tensor uniforms = bench.make({rows}, DType::f64);
    std::fill_n(uniforms.as<double>(), rows, 0.5);
    bench.bytes(fmt::format("sample_tokens, {} rows", rows), 4.0 * static_cast<double>(logits.count()),
                [&] { sample_tokens(tokens, logprobs, logits, uniforms, {}, bench.stream()); });
    bench.clear();
  }
}

void measure(Bench& bench, const Model& m) {
  fmt::print("{}\n", m.name);
  Cost layer, once;
  const Index attention_columns = m.query * m.head_size;
  linear(bench, layer, "qkv", m.rows, (m.query + 2 * m.key_value) * m.head_size, m.width);
  linear(bench, layer, "output", m.rows, m.width, attention_columns);
  linear(bench, layer, "up", m.rows, m.gpt2 ? m.mlp : 2 * m.mlp, m.width);
  linear(bench, layer, "down", m.rows, m.width, m.mlp);
  linear(bench, once, "head", m.rows, m.vocabulary, m.width);
  attention(bench, layer, m);
  norms(bench, layer, m);
  activation(bench, layer, m);
  head(bench, once, m);
  const Index weights = attention_columns * m.width * 2 + 2 * m.key_value * m.head_size * m.width + (m.gpt2 ? 2 : 3) * m.mlp * m.width;
  const double update = optimizer(bench, m.layers * weights + m.vocabulary * m.width);
  const double layers = static_cast<double>(m.layers), products = layers * layer.products + once.products;
  const double rest = layers * layer.rest + once.rest;
  fmt::print(
      "a training step of {} tokens: products {:.1f} ms, other kernels {:.1f} ms, optimizer {:.1f} ms: all else is {:.1f} % of the "
      "products\n\n",
      m.rows, products * 1e3, rest * 1e3, update * 1e3, 100 * (rest + update) / products);
  decode(bench, m);
  fmt::print("\n");
}

}  // namespace

int main(int count, char** arguments) {
  Bench bench(count > 1 ? std::atof(arguments[1]) : 0.2);
  measure(bench, {"GPT-2 small", 1024, 768, 12, 12, 64, 3072, 12, 50257, 256, true});
  measure(bench, {"quickstart", 512, 128, 4, 2, 32, 336, 4, 735, 17, false});
}
