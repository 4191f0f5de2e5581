#include "collimate/data/packing.hpp"

#include "collimate/base/random.hpp"
#include "data/testing.hpp"

namespace collimate {
namespace {

using Grains = std::vector<std::vector<std::int64_t>>;

std::vector<std::int64_t> random_lengths(std::uint64_t seed, std::int64_t n, std::int64_t longest) {
  const RandomKey key(seed, Purpose::evaluation);
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < n; ++i) lengths.push_back(1 + static_cast<std::int64_t>(key.below(longest, i)));
  return lengths;
}

// Brute force: of all ways to cut the sequence into runs that fit, next-fit is the one whose cuts come last, and none has fewer runs.
Grains oracle(const std::vector<std::int64_t>& lengths, std::int64_t capacity) {
  const std::size_t n = lengths.size();
  std::vector<std::size_t> best;
  for (std::uint32_t cuts = 0; cuts < 1u << (n - 1); ++cuts) {
    std::vector<std::size_t> ends;
    std::int64_t filled = 0;
    bool fits = true;
    for (std::size_t i = 0; i < n; ++i) {
      fits = fits && (filled += lengths[i]) <= capacity;
      if (i + 1 == n || cuts >> i & 1) {
        ends.push_back(i + 1);
        filled = 0;
      }
    }
    if (fits && (best.empty() || ends.size() < best.size() || (ends.size() == best.size() && ends > best))) best = ends;
  }
  Grains grains;
  for (std::size_t start = 0; const std::size_t end : best) {
    grains.emplace_back();
    for (; start < end; ++start) grains.back().push_back(static_cast<std::int64_t>(start));
  }
  return grains;
}

TEST(Packing, AgreesWithBruteForce) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const auto lengths = random_lengths(seed, 1 + seed % 10, 9);
    EXPECT_EQ(pack(lengths, 9 + seed % 7), oracle(lengths, 9 + seed % 7)) << seed;
  }
}

TEST(Packing, EdgesAndErrors) {
  EXPECT_TRUE(pack({}, 10).empty());
  const std::vector<std::int64_t> lengths = {10, 10, 0, 1, 11}, ids = {3, 1, 4, 1, 592};
  EXPECT_EQ(pack(std::span(lengths).first(4), 10), (Grains{{0}, {1, 2}, {3}}));
  EXPECT_THAT(refusal([&] { pack(lengths, 10); }),
              testing::AllOf(testing::HasSubstr("sample 4"), testing::HasSubstr("11"), testing::HasSubstr("grain_tokens")));
  EXPECT_THAT(refusal([&] { pack(lengths, 10, ids); }), testing::HasSubstr("sample 592"));
}

TEST(Packing, AGrainByHand) {
  const std::vector<std::int32_t> first = {1, 7, 8, 2}, second = {1, 9};
  const std::vector<std::uint8_t> first_mask = {0, 0, 1, 1}, second_mask = {1, 0};
  const PackedSample samples[] = {{.id = 40, .tokens = first, .mask = first_mask}, {.id = 7, .tokens = second, .mask = second_mask}};
  const PackedGrain grain = pack_grain(samples, 16);
  const auto padded = [](auto values) {
    values.resize(16, -1);
    return values;
  };
  EXPECT_EQ(grain.rows(), 16);
  EXPECT_EQ(grain.tokens, padded(std::vector<std::int32_t>{1, 7, 8, 2, 1, 9}));
  EXPECT_EQ(grain.targets, padded(std::vector<std::int32_t>{-1, 8, 2, -1, -1, -1}));
  EXPECT_EQ(grain.positions, padded(std::vector<std::int32_t>{0, 1, 2, 3, 0, 1}));
  EXPECT_EQ(grain.samples, padded(std::vector<std::int64_t>{40, 40, 40, 40, 7, 7}));
  EXPECT_EQ(grain.offsets, (std::vector<std::int32_t>{0, 4, 6}));
  EXPECT_EQ(grain.ids, (std::vector<std::int64_t>{40, 7}));
  EXPECT_EQ(pack_grain(samples, 6).rows(), 6);
  EXPECT_THAT(refusal([&] { pack_grain(samples, 5); }), testing::HasSubstr("6 tokens do not fit into 5 rows"));
  EXPECT_EQ(pack_grain({}, 0).rows(), 0);
}

// No learned token is lost or shown twice, whatever the packing.
TEST(Packing, TargetsAreThoseOfTheSamplesAlone) {
  const auto lengths = random_lengths(5, 40, 30);
  std::vector<std::vector<std::int32_t>> tokens;
  std::vector<std::vector<std::uint8_t>> masks;
  const RandomKey key(9, Purpose::evaluation);
  std::int64_t learned = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    tokens.emplace_back();
    masks.emplace_back();
    for (std::int64_t t = 0; t < lengths[i]; ++t) {
      tokens[i].push_back(static_cast<std::int32_t>(key.below(500, i, static_cast<std::uint32_t>(t))));
      masks[i].push_back(static_cast<std::uint8_t>(key.below(2, i, static_cast<std::uint32_t>(t), 1)));
      learned += t > 0 && masks[i].back();
    }
  }
  std::int64_t seen = 0;
  for (const auto& members : pack(lengths, 64)) {
    std::vector<PackedSample> samples;
    for (const std::int64_t i : members) samples.push_back({i, tokens[i], masks[i]});
    const PackedGrain grain = pack_grain(samples, 64);
    for (std::int64_t row = 0; row < grain.rows(); ++row) {
      if (grain.targets[row] < 0) continue;
      ++seen;
      const auto& sample = tokens[grain.samples[row]];
      const std::size_t next = grain.positions[row] + 1;
      EXPECT_EQ(grain.tokens[row], sample[next - 1]);
      EXPECT_EQ(grain.targets[row], sample[next]);
      EXPECT_TRUE(masks[grain.samples[row]][next]);
    }
  }
  EXPECT_EQ(seen, learned);
}

}  // namespace
}  // namespace collimate
