#include "collimate/kernels/optimizer.hpp"

#include <set>

#include "kernels/support.hpp"

namespace collimate::kernels {
namespace {

using Index = std::int64_t;

TEST(AdamW, AgreesWithDoubleOverSeveralSteps) {
  for (const EpsilonForm form : {EpsilonForm::torch, EpsilonForm::tf}) {
    Host host;
    constexpr Index count = 1000;
    const Tensor value = host.random({count}, 1), m = host.make({count}), v = host.make({count});
    std::vector<double> x = doubles(value), first(count), second(count);
    for (int step = 1; step <= 5; ++step) {
      const Tensor gradient = host.random({count}, 10 + step, 0.01f);
      const AdamW how{.rate = 0.01, .epsilon = 1e-3, .decay = 0.1, .step = step, .gradient_scale = 0.5, .form = form};
      adamw(value, gradient, m, v, how, host.stream());
      for (Index i = 0; i < count; ++i) {
        const double g = 0.5 * gradient.as<float>()[i], c1 = 1 - std::pow(0.9, step), c2 = 1 - std::pow(0.999, step);
        first[i] = 0.9 * first[i] + 0.1 * g;
        second[i] = 0.999 * second[i] + 0.001 * g * g;
        x[i] -= 0.01 * 0.1 * x[i];
        x[i] -= form == EpsilonForm::torch ? 0.01 / c1 * first[i] / (std::sqrt(second[i] / c2) + 1e-3)
                                           : 0.01 * std::sqrt(c2) / c1 * first[i] / (std::sqrt(second[i]) + 1e-3);
      }
    }
    expect_near(value, x, 1e-6, "value");
    expect_near(m, first, 1e-8, "first moment");
    expect_near(v, second, 1e-10, "second moment");
  }
}

// A ZeRO shard is a piece of the range: cutting must not change bits.
TEST(AdamW, PiecesAndThreadsDoNotChangeBits) {
  Host host;
  constexpr Index count = 40000;
  const Tensor value = host.random({count}, 1), gradient = host.random({count}, 2), m = host.random({count}, 3),
               v = host.filled({count}, 0.3f);
  const AdamW how{.rate = 0.01, .decay = 0.1, .step = 3};
  const auto pieces = [&](Index piece) {
    const Tensor x = host.copy(value), a = host.copy(m), b = host.copy(v);
    for (Index i = 0; i < count; i += piece) {
      const Index n = std::min(piece, count - i);
      adamw(x.slice(i, n), gradient.slice(i, n), a.slice(i, n), b.slice(i, n), how, host.stream());
    }
    return x;
  };
  const Tensor whole = pieces(count);
  for (const Index piece : {7, 1000, 1024, 9999}) EXPECT_TRUE(same_bits(whole, pieces(piece))) << piece;
  expect_same_bits_for_all_threads([&] { return pieces(count); });
  EXPECT_THROW(adamw(value, gradient.slice(0, 7), m, v, how, host.stream()), Error);
  EXPECT_THROW(adamw(value, gradient, m, v, {.step = 0}, host.stream()), Error);
}

TEST(Blocks, SquaresAgreeWithDouble) {
  Host host;
  const Tensor x = host.random({20 * chunk_block}, 1), sums = host.make({20}, DType::f64);
  block_squares(sums, x, host.stream());
  for (Index b = 0; b < 20; ++b) {
    double expected = 0;
    for (Index i = 0; i < chunk_block; ++i) expected += std::pow(static_cast<double>(x.as<float>()[b * chunk_block + i]), 2);
    EXPECT_NEAR(sums.as<double>()[b], expected, 1e-11 * expected);
  }
  expect_same_bits_for_all_threads([&] { const Tensor t = host.make({20}, DType::f64); block_squares(t, x, host.stream()); return t; });
  EXPECT_THROW(block_squares(sums, host.make({1000}), host.stream()), Error);
  EXPECT_THROW(block_squares(host.make({20}), x, host.stream()), Error);
}

TEST(Hash, SeesEveryBitAndEveryPlaceAndPartsAddUp) {
  Host host;
  const Tensor x = host.random({chunk_block}, 1), hash = host.make({1}, DType::u64);
  std::set<std::uint64_t> seen;
  const auto note = [&] {
    hash.zero(host.stream());
    element_hash(hash, x, 0, host.stream());
    return seen.insert(hash.as<std::uint64_t>()[0]).second;
  };
  EXPECT_TRUE(note());
  EXPECT_FALSE(note());
  auto* words = static_cast<std::uint32_t*>(x.data());
  for (Index i = 0; i < chunk_block; i += 31)
    for (int bit = 0; bit < 32; bit += 3) {
      words[i] ^= 1u << bit;
      EXPECT_TRUE(note()) << "bit " << bit << " of word " << i;
      words[i] ^= 1u << bit;
    }
  std::swap(words[3], words[900]);
  EXPECT_TRUE(note());
  std::fill_n(words, chunk_block, 0u);
  EXPECT_TRUE(note());
  x.as<float>()[5] = -0.0f;
  EXPECT_TRUE(note());
  const Tensor longer = host.random({40000}, 2), part = host.make({1}, DType::u64);
  hash.zero(host.stream());
  element_hash(hash, longer, 100, host.stream());
  const std::uint64_t whole = *hash.as<std::uint64_t>();
  for (const auto& [begin, end] : {std::pair<Index, Index>{0, 1}, {1, 777}, {777, 20000}, {20000, 40000}})
    element_hash(part, longer.slice(begin, end - begin), 100 + begin, host.stream());
  EXPECT_EQ(*part.as<std::uint64_t>(), whole) << "parts add up";
  hash.zero(host.stream());
  element_hash(hash, longer, 101, host.stream());
  EXPECT_NE(*hash.as<std::uint64_t>(), whole) << "the place counts";
}

}  // namespace
}  // namespace collimate::kernels
