// Values of parameters at rest as bf16: each kernel that reads them gives, bit by bit, what it gives for the same numbers as f32, which the
// other tests compare with fp64; a type that a kernel does not take is refused by the operand's name.
#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/embedding.hpp"
#include "collimate/kernels/head.hpp"
#include "collimate/kernels/matmul.hpp"
#include "collimate/kernels/norm.hpp"
#include "collimate/kernels/optimizer.hpp"
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
const Layer layers[] = {{16, 1, 48},    {17, 3, 7},     {100, 48, 130}, {272, 735, 128}, {300, 128, 336},
                        {528, 50, 600}, {64, 1700, 96}, {0, 8, 8},      {32, 8, 0},      {32, 0, 8}};

/// Values of a parameter as bf16, and the same numbers as f32.
struct Values {
  Tensor brief, wide;
  Values(Host& host, Shape shape, unsigned seed) : brief(host.random_bf16(shape, seed)), wide(host.widened(brief)) {}
};

/// Expects compute(values...) of all bf16 values, and of mixtures of the two types, to have the bits of the f32 ones, on any threads.
template <class Compute>
void expect_bits_of_widened(const Compute& compute, const Values& a, const Values& b) {
  const int before = omp_get_max_threads();
  const Tensor expected = compute(a.wide, b.wide);
  for (const int threads : {1, 3}) {
    omp_set_num_threads(threads);
    EXPECT_TRUE(same_bits(compute(a.brief, b.brief), expected)) << threads << " threads";
    EXPECT_TRUE(same_bits(compute(a.brief, b.wide), expected)) << "bf16, f32, " << threads << " threads";
    EXPECT_TRUE(same_bits(compute(a.wide, b.brief), expected)) << "f32, bf16, " << threads << " threads";
  }
  omp_set_num_threads(before);
}

TEST(Bf16Values, LinearForwardAndDecode) {
  for (const auto& [rows, n, k] : layers) {
    SCOPED_TRACE(fmt::format("rows {} n {} k {}", rows, n, k));
    Host host;
    const Values w(host, {n, k}, 1), bias(host, {n}, 2);
    const Tensor x = host.random({rows, k}, 3), start = host.random({rows, n}, 4);
    for (const Write write : {Write::replace, Write::add})
      for (const bool biased : {false, true})
        expect_bits_of_widened(
            [&](const Tensor& weights, const Tensor& terms) {
              const Tensor y = host.copy(start);
              linear_forward(y, x, weights, biased ? terms : Tensor(), write, host.stream());
              return y;
            },
            w, bias);
    for (const Index count : {Index{1}, Index{2}, Index{3}, Index{5}, Index{8}, Index{13}, rows})
      if (count <= rows)
        expect_bits_of_widened(
            [&](const Tensor& weights, const Tensor& terms) {
              const Tensor y = host.filled({count, n}, not_a_number);
              linear_decode(y, x.slice(0, count), weights, count % 2 ? terms : Tensor(), host.stream());
              return y;
            },
            w, bias);
  }
}

// Few rows of long products: the parts of k through the nearest cache, and the shares of threads.
TEST(Bf16Values, LongDecode) {
  for (const auto& [rows, n, k] : {Layer{8, 35, 2309}, {1, 1000, 1170}, {4, 130, 3072}, {2, 17, 4100}}) {
    Host host;
    const Values w(host, {n, k}, 1), bias(host, {n}, 2);
    const Tensor x = host.random({rows, k}, 3);
    expect_bits_of_widened(
        [&](const Tensor& weights, const Tensor& terms) {
          const Tensor y = host.filled({rows, n}, not_a_number);
          linear_decode(y, x, weights, terms, host.stream());
          return y;
        },
        w, bias);
  }
}

TEST(Bf16Values, LinearBackwardInput) {
  for (const auto& [rows, n, k] : layers) {
    SCOPED_TRACE(fmt::format("rows {} n {} k {}", rows, n, k));
    Host host;
    const Values w(host, {n, k}, 1);
    const Tensor dy = host.random({rows, n}, 3), start = host.random({rows, k}, 4);
    for (const Write write : {Write::replace, Write::add, Write::go_on})
      expect_bits_of_widened(
          [&](const Tensor& weights, const Tensor&) {
            const Tensor dx = host.copy(start);
            linear_backward_input(dx, dy, weights, write, host.stream());
            return dx;
          },
          w, w);
  }
}

TEST(Bf16Values, Norms) {
  for (const auto& [rows, columns] : {std::pair<Index, Index>{5, 48}, {3, 7}, {600, 33}, {270, 100}, {0, 8}}) {
    SCOPED_TRACE(fmt::format("rows {} columns {}", rows, columns));
    Host host;
    const Values gain(host, {columns}, 1), bias(host, {columns}, 2);
    const Tensor x = host.random({rows, columns}, 3), dy = host.random({rows, columns}, 4), mean = host.make({rows}),
                 rstd = host.make({rows});
    Stream& stream = host.stream();
    expect_bits_of_widened(
        [&](const Tensor& g, const Tensor& b) {
          const Tensor y = host.make({rows, columns});
          layer_norm_forward(y, mean, rstd, x, g, b, 1e-5f, stream);
          return y;
        },
        gain, bias);
    const auto backward = [&](bool layer, Write write, auto pick) {
      expect_bits_of_widened(
          [&](const Tensor& g, const Tensor&) {
            const Tensor dx = host.filled({rows, columns}, 0.5f), dgain = host.filled({columns}, 0.5f),
                         dbias = host.filled({columns}, 0.5f);
            if (layer)
              layer_norm_backward(dx, dgain, dbias, dy, x, g, mean, rstd, write, write, stream);
            else
              rms_norm_backward(dx, dgain, dy, x, g, rstd, write, write, stream);
            return pick(dx, dgain, dbias);
          },
          gain, bias);
    };
    for (const bool layer : {true, false}) {
      if (!layer)
        expect_bits_of_widened(
            [&](const Tensor& g, const Tensor&) {
              const Tensor y = host.make({rows, columns});
              rms_norm_forward(y, rstd, x, g, 1e-5f, stream);
              return y;
            },
            gain, bias);
      for (const Write write : {Write::replace, Write::add}) {
        backward(layer, write, [](Tensor dx, Tensor, Tensor) { return dx; });
        backward(layer, write, [](Tensor, Tensor dgain, Tensor) { return dgain; });
        if (layer) backward(layer, write, [](Tensor, Tensor, Tensor dbias) { return dbias; });
      }
    }
  }
}

TEST(Bf16Values, EmbeddingsAndBiases) {
  for (const Index columns : {1, 7, 16, 83, 320}) {
    Host host;
    constexpr Index rows = 300;
    const Values table(host, {5, columns}, 1), bias(host, {columns}, 2);
    table.brief.as<BFloat16>()[0].bits = 0x7fa1;  // a NaN that does not trap, whose bits are to be kept
    table.wide.as<float>()[0] = to_float({0x7fa1});
    std::vector<std::int32_t> ids;
    for (Index r = 0; r < rows; ++r) ids.push_back(static_cast<std::int32_t>(r * 7 % 9) - 1);
    const Tensor tokens = host.of(ids), start = host.random({rows, columns}, 3);
    std::vector<std::int32_t> places(ids);
    for (std::int32_t& place : places) place = place < 5 ? place : 0;
    const Tensor positions = host.of(places);
    expect_bits_of_widened(
        [&](const Tensor& entries, const Tensor&) {
          const Tensor y = host.copy(start);
          embedding_forward(y, entries, tokens, 2, host.stream());
          return y;
        },
        table, bias);
    expect_bits_of_widened(
        [&](const Tensor& entries, const Tensor& terms) {
          const Tensor y = host.copy(start);
          embedding_add(y, entries, positions, host.stream());
          add_bias(y, terms, host.stream());
          return y;
        },
        table, bias);
  }
}

TEST(Bf16Values, ValueHead) {
  for (const auto& [rows, columns] : {std::pair<Index, Index>{530, 100}, {3, 7}, {40, 768}}) {
    Host host;
    const Values w(host, {columns}, 1), b(host, {1}, 2);
    const Tensor hidden = host.random({rows, columns}, 3), dvalues = host.random({rows}, 4), dw = host.make({columns}), db = host.make({1});
    expect_bits_of_widened(
        [&](const Tensor& weights, const Tensor& bias) {
          const Tensor values = host.make({rows});
          value_forward(values, hidden, weights, bias, host.stream());
          return values;
        },
        w, b);
    expect_bits_of_widened(
        [&](const Tensor& weights, const Tensor&) {
          const Tensor dhidden = host.make({rows, columns});
          value_backward(dhidden, dw, db, dvalues, hidden, weights, Write::replace, host.stream());
          return dhidden;
        },
        w, b);
  }
}

TEST(Bf16Values, HashIsThatOfTheWidenedNumbers) {
  Host host;
  const Values x(host, {20000}, 1);
  const auto hash_of = [&](const Tensor& numbers, const Tensor&) {
    const Tensor hash = host.make({1}, DType::u64);
    element_hash(hash, numbers, 77, host.stream());
    return hash;
  };
  expect_bits_of_widened(hash_of, x, x);
  const Tensor before = hash_of(x.brief, {});
  x.brief.as<BFloat16>()[19999].bits ^= 1;
  EXPECT_FALSE(same_bits(hash_of(x.brief, {}), before));
}

TEST(Bf16Values, OtherTypesAreRefusedByTheOperandsName) {
  Host host;
  Stream& stream = host.stream();
  const auto f64 = [&](Shape shape) { return host.make(shape, DType::f64); };
  const auto bf16 = [&](Shape shape) { return host.make(shape, DType::bf16); };
  const Tensor x = host.random({16, 8}, 1), y = host.make({16, 4}), row = host.make({16}), gain = host.make({8}),
               tokens = host.make({16}, DType::i32);
  EXPECT_SAYS(refusal([&] {
                linear_forward(y, x, f64({4, 8}), {}, Write::replace, stream);
              }),
              "linear_forward needs w to be f32 or bf16 with 2 axes, and it is f64 [4, 8]");
  EXPECT_SAYS(refusal([&] {
                linear_forward(y, x, bf16({4, 8}), f64({4}), Write::replace, stream);
              }),
              "linear_forward needs bias to be f32 or bf16 [4], and it is f64 [4]");
  EXPECT_SAYS(refusal([&] {
                linear_backward_input(x, y, f64({4, 8}), Write::replace, stream);
              }),
              "linear_backward_input needs w to be f32 or bf16");
  EXPECT_SAYS(refusal([&] {
                linear_backward_weight(bf16({4, 8}), y, x, Write::replace, stream);
              }),
              "linear_backward_weight needs dw to be f32");
  EXPECT_SAYS(refusal([&] { linear_decode(y, x, f64({4, 8}), {}, stream); }), "linear_decode needs w to be f32 or bf16");
  EXPECT_SAYS(refusal([&] { rms_norm_forward(x, row, x, f64({8}), 1e-5f, stream); }),
              "rms_norm_forward needs gain to be f32 or bf16 [8], and it is f64 [8]");
  EXPECT_SAYS(refusal([&] { rms_norm_backward(x, bf16({8}), x, x, gain, row, Write::replace, Write::replace, stream); }),
              "needs dgain to be f32 [8]");
  EXPECT_SAYS(refusal([&] { layer_norm_forward(x, row, row, x, gain, f64({8}), 1e-5f, stream); }),
              "layer_norm_forward needs bias to be f32 or bf16");
  EXPECT_SAYS(refusal([&] { embedding_forward(x, f64({4, 8}), tokens, 0, stream); }), "embedding_forward needs table to be f32 or bf16");
  EXPECT_SAYS(refusal([&] { embedding_backward(bf16({4, 8}), x, tokens, 0, stream); }), "embedding_backward needs table to be f32");
  EXPECT_SAYS(refusal([&] { add_bias(x, f64({8}), stream); }), "add_bias needs bias to be f32 or bf16");
  EXPECT_SAYS(refusal([&] { value_forward(row, x, f64({8}), gain.slice(0, 1), stream); }), "value_forward needs w to be f32 or bf16");
  EXPECT_SAYS(refusal([&] { value_backward(x, gain, gain.slice(0, 1), row, x, f64({8}), Write::replace, stream); }),
              "value_backward needs w to be f32 or bf16");
  EXPECT_SAYS(refusal([&] { element_hash(host.make({1}, DType::u64), f64({8}), 0, stream); }), "element_hash needs x to be f32 or bf16");
}

}  // namespace
}  // namespace collimate::kernels
