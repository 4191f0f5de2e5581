// Factors of products and what they give at rest as bf16: each kernel gives what it gives for the same numbers as f32, rounded to nearest
// even once where the output is bf16, bit by bit.
#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/matmul.hpp"
#include "collimate/kernels/norm.hpp"
#include "kernels/support.hpp"
#include "support/refusal.hpp"
#include "support/says.hpp"

namespace collimate::kernels {
namespace {

using Index = std::int64_t;
using test::refusal;

/// Rows, outputs, inputs; shapes that no tile divides, and those of several tiles, blocks and parts of k.
struct Layer {
  Index rows, n, k;
};
const Layer layers[] = {{16, 1, 48},   {17, 3, 7},     {100, 48, 130}, {272, 735, 128}, {300, 128, 336}, {528, 50, 600},
                        {40, 96, 777}, {64, 1700, 96}, {0, 8, 8},      {32, 8, 0},      {32, 0, 8}};

/// f32 numbers rounded one by one.
Tensor rounded(Host& host, const Tensor& wide) {
  const Tensor t = host.make(wide.shape(), DType::bf16);
  for (Index i = 0; i < t.count(); ++i) t.as<BFloat16>()[i] = to_bf16(wide.as<float>()[i]);
  return t;
}

/// Expects compute(out, a, b) to have the bits of the f32 kernel on widened operands, for every type of each operand and on any threads;
/// rounded, where out is bf16. `start` is what the output held before; `may_round`: whether it may be bf16.
template <class Compute>
void expect_bits_of_f32(Host& host, const Tensor& start, bool may_round, const Tensor& a, const Tensor& b, const Compute& compute) {
  const Tensor wide_a = host.widened(a), wide_b = host.widened(b), expected = host.copy(start);
  compute(expected, wide_a, wide_b);
  const Tensor brief = rounded(host, expected);
  const int before = omp_get_max_threads();
  for (const int threads : {1, 3}) {
    omp_set_num_threads(threads);
    for (const Tensor& left : {a, wide_a})
      for (const Tensor& right : {b, wide_b}) {
        const Tensor wide = host.copy(start);
        compute(wide, left, right);
        EXPECT_TRUE(same_bits(wide, expected)) << name_of(left.dtype()) << " " << name_of(right.dtype()) << " " << threads << " threads";
        if (!may_round) continue;
        const Tensor out = host.make(start.shape(), DType::bf16);
        std::fill_n(out.as<BFloat16>(), out.count(), to_bf16(not_a_number));
        compute(out, left, right);
        EXPECT_TRUE(same_bits(out, brief)) << "rounded, " << name_of(left.dtype()) << " " << name_of(right.dtype()) << " " << threads
                                           << " threads";
      }
  }
  omp_set_num_threads(before);
}

TEST(Bf16Activations, LinearLayers) {
  for (const auto& [rows, n, k] : layers) {
    SCOPED_TRACE(fmt::format("rows {} n {} k {}", rows, n, k));
    Host host;
    Stream& stream = host.stream();
    const Tensor x = host.random_bf16({rows, k}, 1), dy = host.random_bf16({rows, n}, 2), w = host.random_bf16({n, k}, 3);
    const Tensor bias = host.random({n}, 4);
    for (const Write write : {Write::replace, Write::add}) {
      const bool replaces = write == Write::replace;
      for (const Tensor& terms : {Tensor(), bias})
        expect_bits_of_f32(
            host, host.random({rows, n}, 5), replaces, x, w,
            [&](const Tensor& out, const Tensor& left, const Tensor& right) { linear_forward(out, left, right, terms, write, stream); });
      expect_bits_of_f32(host, host.random({n, k}, 5), false, dy, x, [&](const Tensor& out, const Tensor& left, const Tensor& right) {
        linear_backward_weight(out, left, right, write, stream);
      });
      expect_bits_of_f32(host, host.random({n}, 5), false, dy, dy,
                         [&](const Tensor& out, const Tensor& left, const Tensor&) { linear_backward_bias(out, left, write, stream); });
    }
    for (const Write write : {Write::replace, Write::add, Write::go_on})
      expect_bits_of_f32(
          host, host.random({rows, k}, 5), write == Write::replace, dy, w,
          [&](const Tensor& out, const Tensor& left, const Tensor& right) { linear_backward_input(out, left, right, write, stream); });
  }
}

TEST(Bf16Activations, Decode) {
  for (const auto& [rows, n, k] : {Layer{1, 735, 128},
                                   {1, 50, 97},
                                   {2, 35, 1000},
                                   {3, 17, 48},
                                   {5, 100, 336},
                                   {8, 35, 2309},
                                   {21, 48, 130},
                                   {4, 1, 7},
                                   {3, 2000, 1}}) {  // of one term, whose roundings are often ties
    SCOPED_TRACE(fmt::format("rows {} n {} k {}", rows, n, k));
    Host host;
    const Tensor x = host.random_bf16({rows, k}, 1), w = host.random_bf16({n, k}, 2), bias = host.random({n}, 3);
    for (const Tensor& terms : {Tensor(), bias})
      expect_bits_of_f32(
          host, host.filled({rows, n}, not_a_number), true, x, w,
          [&](const Tensor& out, const Tensor& left, const Tensor& right) { linear_decode(out, left, right, terms, host.stream()); });
  }
}

TEST(Bf16Activations, ActivationFunctions) {
  for (const auto& [rows, columns] : {std::pair<Index, Index>{3, 37}, {270, 64}, {1, 1}, {5, 0}}) {
    SCOPED_TRACE(fmt::format("rows {} columns {}", rows, columns));
    Host host;
    Stream& stream = host.stream();
    const Tensor x = host.random_bf16({rows, columns}, 1, 3.0f), gate_up = host.random_bf16({rows, 2 * columns}, 2, 3.0f);
    const Tensor dy = host.random_bf16({rows, columns}, 3);
    const Tensor narrow = host.filled({rows, columns}, not_a_number), broad = host.filled({rows, 2 * columns}, not_a_number);
    using In = const Tensor&;
    expect_bits_of_f32(host, narrow, true, x, x, [&](In out, In from, In) { gelu_forward(out, from, stream); });
    expect_bits_of_f32(host, narrow, true, dy, x, [&](In out, In d, In from) { gelu_backward(out, d, from, stream); });
    expect_bits_of_f32(host, narrow, true, gate_up, x, [&](In out, In from, In) { swiglu_forward(out, from, stream); });
    expect_bits_of_f32(host, broad, true, dy, gate_up, [&](In out, In d, In from) { swiglu_backward(out, d, from, stream); });
  }
  Host host;
  const Tensor x = host.random_bf16({40, 64}, 1, 3.0f), in_place = host.random_bf16({40, 64}, 2), apart = host.make({40, 64}, DType::bf16);
  gelu_backward(apart, in_place, x, host.stream());
  gelu_backward(in_place, in_place, x, host.stream());
  EXPECT_TRUE(same_bits(in_place, apart));
}

TEST(Bf16Activations, OutputsOfNorms) {
  for (const auto& [rows, columns] : {std::pair<Index, Index>{5, 48}, {3, 7}, {270, 100}}) {
    Host host;
    Stream& stream = host.stream();
    const Tensor x = host.random({rows, columns}, 1), gain = host.random_bf16({columns}, 2), bias = host.random_bf16({columns}, 3);
    const Tensor mean = host.make({rows}), rstd = host.make({rows}), start = host.filled({rows, columns}, not_a_number);
    expect_bits_of_f32(host, start, true, gain, bias, [&](const Tensor& out, const Tensor& g, const Tensor& b) {
      layer_norm_forward(out, mean, rstd, x, g, b, 1e-5f, stream);
    });
    expect_bits_of_f32(host, start, true, gain, bias,
                       [&](const Tensor& out, const Tensor& g, const Tensor&) { rms_norm_forward(out, rstd, x, g, 1e-5f, stream); });
  }
}

TEST(Bf16Activations, SumsAreNeverRoundedInBetween) {
  Host host;
  Stream& stream = host.stream();
  const auto bf16 = [&](Shape shape) { return host.make(shape, DType::bf16); };
  const Tensor x = host.random({16, 8}, 1), w = host.random({4, 8}, 2), y = bf16({16, 4}), dx = bf16({16, 8});
  EXPECT_SAYS(refusal([&] { linear_forward(y, x, w, {}, Write::add, stream); }),
              "linear_forward needs y to be f32 [16, 4], and it is bf16 [16, 4]");
  for (const Write write : {Write::add, Write::go_on})
    EXPECT_SAYS(refusal([&] { linear_backward_input(dx, y, w, write, stream); }), "linear_backward_input needs dx to be f32 [16, 8]");
  EXPECT_SAYS(refusal([&] { linear_backward_weight(bf16({4, 8}), y, x, Write::replace, stream); }), "needs dw to be f32 [4, 8]");
  EXPECT_SAYS(refusal([&] { linear_backward_bias(bf16({4}), y, Write::replace, stream); }), "needs dbias to be f32 [4]");
  EXPECT_SAYS(refusal([&] { linear_decode(y, host.make({16, 8}, DType::f64), w, {}, stream); }), "linear_decode needs x to be f32 or bf16");
  EXPECT_SAYS(refusal([&] { rms_norm_forward(x, host.make({16}), dx, host.make({8}), 1e-5f, stream); }),
              "rms_norm_forward needs x to be f32");
  EXPECT_SAYS(refusal([&] { gelu_forward(dx, host.make({16, 8}, DType::f64), stream); }), "gelu_forward needs x to be f32 or bf16");
}

}  // namespace
}  // namespace collimate::kernels
