#include "collimate/kernels/elementwise.hpp"

#include "kernels/cpu/lanes.hpp"
#include "kernels/support.hpp"
#include "support/refusal.hpp"
#include "support/says.hpp"

namespace collimate::kernels {
namespace {

using Index = std::int64_t;
using Vector = std::vector<double>;
using test::refusal;

double gelu(double x) { return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }
double silu(double x) { return x / (1 + std::exp(-x)); }

TEST(Exp, IsWithinTwoUlp) {
  double worst = 0;
  for (double x = -87.3; x < 88.7; x += 0.000731) {
    const float in = static_cast<float>(x);
    const double exact = std::exp(static_cast<double>(in));
    const double ulp = std::ldexp(1.0, std::ilogb(exact) - 23);
    worst = std::max(worst, std::abs(cpu::exp(in) - exact) / ulp);
  }
  EXPECT_LT(worst, 1.5);
  EXPECT_EQ(cpu::exp(0.0f), 1.0f);
  EXPECT_EQ(cpu::exp(-88.0f), 0.0f);
  EXPECT_EQ(cpu::exp(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_EQ(cpu::exp(89.0f), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(cpu::exp(not_a_number)));
}

TEST(Add, Adds) {
  Host host;
  const Tensor a = host.random({3, 4, 7}, 1), b = host.random({3, 4, 7}, 2);
  Vector expected = doubles(a);
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += b.as<float>()[i];
  add(a, a, b, host.stream());
  expect_near(a, expected, 1e-7);
  EXPECT_THROW(add(a, a, host.make({3, 4, 8}), host.stream()), Error);
  constexpr std::int32_t largest = std::numeric_limits<std::int32_t>::max();
  const Tensor whole = host.of<std::int32_t>({1, -5, largest, 0}), more = host.of<std::int32_t>({2, 5, 1, 7});
  add(whole, whole, more, host.stream());
  EXPECT_EQ(std::vector(whole.as<std::int32_t>(), whole.as<std::int32_t>() + 4), (std::vector<std::int32_t>{3, 0, -largest - 1, 7}));
  EXPECT_THROW(add(whole, whole, host.make({4}), host.stream()), Error);
}

// Every bf16 number widened, and fp32 numbers of every exponent rounded, at every place within the lanes.
TEST(Cast, MovesBitsAsTheConversionsOfOneNumberDo) {
  Host host;
  const Tensor all = host.make({65536}, DType::bf16), wide = host.filled({65536}, 1.0f), back = host.make({65536}, DType::bf16);
  for (Index i = 0; i < 65536; ++i) all.as<BFloat16>()[i].bits = static_cast<std::uint16_t>(i);
  cast(wide, all, host.stream());
  cast(back, wide, host.stream());
  for (Index i = 0; i < 65536; ++i) {
    ASSERT_EQ(std::bit_cast<std::uint32_t>(wide.as<float>()[i]), static_cast<std::uint32_t>(i) << 16);
    ASSERT_EQ(back.as<BFloat16>()[i], to_bf16(to_float(all.as<BFloat16>()[i]))) << i;
  }
  std::mt19937 engine(1);
  const Tensor any = host.make({40007}), rounded = host.make({40007}, DType::bf16);
  for (Index i = 0; i < any.count(); ++i) {
    const auto word = static_cast<std::uint32_t>(engine());
    any.as<float>()[i] = std::bit_cast<float>(i % 3 ? word : (word & 0xffff0000) | 0x8000);  // every third is a tie
  }
  cast(rounded, any, host.stream());
  for (Index i = 0; i < any.count(); ++i) ASSERT_EQ(rounded.as<BFloat16>()[i], to_bf16(any.as<float>()[i])) << any.as<float>()[i];
  for (Index count = 0; count <= 40; ++count) {
    const Tensor part = host.make({64}, DType::bf16), whole = host.filled({64}, 7.0f);
    std::fill_n(part.as<BFloat16>(), 64, BFloat16{0x1234});
    cast(part.slice(3, count), any.slice(count, count), host.stream());
    cast(whole.slice(3, count), rounded.slice(count, count), host.stream());
    for (Index i = 0; i < 64; ++i) {
      const bool inside = i >= 3 && i < 3 + count;
      const BFloat16 expected = inside ? rounded.as<BFloat16>()[count + i - 3] : BFloat16{0x1234};
      ASSERT_EQ(part.as<BFloat16>()[i], expected) << count;
      ASSERT_EQ(std::bit_cast<std::uint32_t>(whole.as<float>()[i]), std::bit_cast<std::uint32_t>(inside ? to_float(expected) : 7.0f)) << count;
    }
  }
  expect_same_bits_for_all_threads([&] { const Tensor t = host.make({40007}, DType::bf16); cast(t, any, host.stream()); return t; });
}

TEST(Cast, RefusesOtherTypesAndShapes) {
  Host host;
  const Tensor wide = host.make({4}), brief = host.make({4}, DType::bf16);
  EXPECT_SAYS(refusal([&] { cast(wide, wide, host.stream()); }), "cast needs from to be bf16 [4], and it is f32 [4]");
  EXPECT_SAYS(refusal([&] { cast(brief, brief, host.stream()); }), "cast needs from to be f32 [4], and it is bf16 [4]");
  EXPECT_SAYS(refusal([&] { cast(host.make({4}, DType::f64), brief, host.stream()); }), "cast needs to to be f32 or bf16 [4], and it is f64 [4]");
  EXPECT_SAYS(refusal([&] { cast(wide, host.make({5}, DType::bf16), host.stream()); }), "bf16 [5]");
}

TEST(Columns, AreCopiedAndAdded) {
  Host host;
  const Tensor x = host.random({5, 9}, 1), y = host.random({5, 23}, 2), sum = host.copy(y), copied = host.copy(y);
  add_columns(sum, 11, x, 2, 6, host.stream());
  copy_columns(copied, 11, x, 2, 6, host.stream());
  for (Index r = 0; r < 5; ++r)
    for (Index c = 0; c < 23; ++c) {
      const bool inside = c >= 11 && c < 17;
      const float before = y.as<float>()[r * 23 + c], other = inside ? x.as<float>()[r * 9 + c - 9] : 0;
      EXPECT_EQ(sum.as<float>()[r * 23 + c], inside ? before + other : before);
      EXPECT_EQ(copied.as<float>()[r * 23 + c], inside ? other : before);
    }
  EXPECT_THROW(add_columns(sum, 18, x, 2, 6, host.stream()), Error);
  EXPECT_THROW(add_columns(sum, 0, host.make({4, 9}), 0, 6, host.stream()), Error);
}

TEST(Scale, Scales) {
  Host host;
  const Tensor x = host.random({3, 37}, 1), y = host.copy(x);
  scale(y, 0.3f, host.stream());
  for (Index i = 0; i < x.count(); ++i) EXPECT_EQ(y.as<float>()[i], x.as<float>()[i] * 0.3f);
}

TEST(Gelu, AgreesWithDoubleAndCentralDifferences) {
  Host host;
  const Tensor x = host.random({7, 43}, 1, 3.0f), dy = host.random({7, 43}, 2), y = host.make({7, 43});
  x.as<float>()[0] = 30;
  x.as<float>()[1] = -30;
  x.as<float>()[2] = 0;
  const auto forward = [](Vector v) {
    for (double& e : v) e = gelu(e);
    return v;
  };
  gelu_forward(y, x, host.stream());
  expect_near(y, forward(doubles(x)), 1e-6);
  const Vector dx = central_differences(doubles(x), [&](const Vector& v) { return dot(doubles(dy), forward(v)); });
  gelu_backward(dy, dy, x, host.stream());
  expect_near(dy, dx, 2e-6);
  EXPECT_THROW(gelu_forward(y, host.make({7, 44}), host.stream()), Error);
}

TEST(Swiglu, AgreesWithDoubleAndCentralDifferences) {
  Host host;
  constexpr Index rows = 3, columns = 37;
  const Tensor x = host.random({rows, 2 * columns}, 1, 3.0f), dy = host.random({rows, columns}, 2), y = host.make({rows, columns});
  const auto forward = [](const Vector& v) {
    Vector out;
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < columns; ++c) out.push_back(silu(v[2 * r * columns + c]) * v[(2 * r + 1) * columns + c]);
    return out;
  };
  swiglu_forward(y, x, host.stream());
  expect_near(y, forward(doubles(x)), 1e-6);
  const Vector expected = central_differences(doubles(x), [&](const Vector& v) { return dot(doubles(dy), forward(v)); });
  const Tensor dx = host.filled(x.shape(), not_a_number);
  swiglu_backward(dx, dy, x, host.stream());
  expect_near(dx, expected, 2e-6);
  EXPECT_THROW(swiglu_forward(y, host.make({rows, columns}), host.stream()), Error);
}

// R6: an element's bits depend neither on its place nor on what is beside it.
TEST(Elementwise, BodyAndTailAgree) {
  Host host;
  constexpr Index count = 20000;
  const Tensor x = host.random({count}, 1, 2.0f), dy = host.random({count}, 2), y = host.make({count}), dx = host.make({count});
  gelu_forward(y, x, host.stream());
  gelu_backward(dx, dy, x, host.stream());
  for (Index i = 0; i + 20 <= count; i += 7) {
    const Tensor one = host.make({1}), part = host.make({19}), back = host.make({3});
    gelu_forward(one, x.slice(i, 1), host.stream());
    gelu_forward(part, x.slice(i + 1, 19), host.stream());
    gelu_backward(back, dy.slice(i, 3), x.slice(i, 3), host.stream());
    ASSERT_TRUE(same_bits(one, y.slice(i, 1)) && same_bits(part, y.slice(i + 1, 19)) && same_bits(back, dx.slice(i, 3))) << i;
  }
  expect_same_bits_for_all_threads([&] { const Tensor t = host.make({count}); gelu_forward(t, x, host.stream()); return t; });
}

TEST(Dropout, MaskDependsOnItsKeyOnly) {
  Host host;
  constexpr Index rows = 40, columns = 131;
  const RandomKey key(7, Purpose::dropout);
  const Tensor x = host.random({rows, columns}, 1), y = host.make({rows, columns});
  std::vector<std::int64_t> samples;
  std::vector<std::int32_t> positions;
  for (Index r = 0; r < rows; ++r) {
    samples.push_back(1000000007 * (r / 10) + 5);
    positions.push_back(static_cast<std::int32_t>(r % 10));
  }
  const Tensor sample = host.of(samples), position = host.of(positions);
  dropout(y, x, 0.25, key, sample, position, 9, host.stream());
  Index kept = 0;
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; ++c) {
      const auto word = key.words(samples[r], positions[r], 9u << 18 | static_cast<std::uint32_t>(c / 4))[c % 4];
      const bool keep = word >= 0x40000000u;
      kept += keep;
      ASSERT_EQ(y.as<float>()[r * columns + c], keep ? x.as<float>()[r * columns + c] * static_cast<float>(1 / 0.75) : 0.0f);
    }
  EXPECT_NEAR(static_cast<double>(kept) / (rows * columns), 0.75, 0.02);
  const Tensor part = host.make({3, columns});
  dropout(part, x.slice(17, 3), 0.25, key, sample.slice(17, 3), position.slice(17, 3), 9, host.stream());
  EXPECT_TRUE(same_bits(part, y.slice(17, 3)));
  const Tensor right = host.make({rows, 51}), dropped = host.make({rows, 51});  // columns 80 and on, as a part of their own
  copy_columns(right, 0, x, 80, 51, host.stream());
  dropout(dropped, right, 0.25, key, sample, position, 9, host.stream(), 80);
  copy_columns(right, 0, y, 80, 51, host.stream());
  EXPECT_TRUE(same_bits(dropped, right));
  EXPECT_THROW(dropout(dropped, right, 0.1, key, sample, position, 9, host.stream(), 82), Error);
  EXPECT_THROW(dropout(y, x, 1.0, key, sample, position, 9, host.stream()), Error);
  EXPECT_THROW(dropout(y, x, 0.1, key, sample, position, 1 << 14, host.stream()), Error);
}

}  // namespace
}  // namespace collimate::kernels
