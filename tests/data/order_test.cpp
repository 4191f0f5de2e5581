#include "collimate/data/order.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "data/testing.hpp"

namespace collimate {
namespace {

std::vector<std::int64_t> identity(std::int64_t n) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

TEST(Order, AnEpochIsAPermutation) {
  for (const std::int64_t n : {1, 2, 3, 15, 16, 17, 255, 256, 257, 1000, 4096, 70000}) {
    auto epoch = take(n, 7, 0, n);
    if (n > 15) {
      EXPECT_NE(epoch, identity(n));
    }
    std::sort(epoch.begin(), epoch.end());
    EXPECT_EQ(epoch, identity(n)) << n;
  }
}

TEST(Order, DependsOnSeedAndEpochOnly) {
  const std::int64_t n = 1000;
  const auto two_epochs = take(n, 7, 0, 2 * n);
  EXPECT_EQ(two_epochs, take(n, 7, 0, 2 * n));
  EXPECT_NE(std::vector(two_epochs.begin(), two_epochs.begin() + n), std::vector(two_epochs.begin() + n, two_epochs.end()));
  EXPECT_NE(take(n, 8, 0, n), take(n, 7, 0, n));
  std::vector<std::int64_t> pieces;
  for (std::int64_t cursor = 0; cursor < 2 * n; cursor += 37) {
    const auto piece = take(n, 7, cursor, std::min<std::int64_t>(37, 2 * n - cursor));
    pieces.insert(pieces.end(), piece.begin(), piece.end());
  }
  EXPECT_EQ(pieces, two_epochs);
  EXPECT_EQ(take(5, 7, 3, 4, false), (std::vector<std::int64_t>{3, 4, 0, 1}));
}

// All 24 orders of four samples come about equally often: chi-square with 23 degrees of freedom, 99.99 % below 54.
TEST(Order, EveryOrderIsEquallyLikely) {
  std::map<std::vector<std::int64_t>, int> seen;
  const int seeds = 4800;
  for (int seed = 0; seed < seeds; ++seed) ++seen[take(4, seed, 4 * 3, 4)];
  ASSERT_EQ(seen.size(), 24u);
  double chi_square = 0;
  for (const auto& [order, count] : seen) chi_square += std::pow(count - seeds / 24.0, 2) / (seeds / 24.0);
  EXPECT_LT(chi_square, 54);
}

TEST(Order, NeighboursPartInALargeDataset) {
  const std::int64_t n = 50000;
  const auto epoch = take(n, 3, 0, n);
  double covariance = 0;
  for (std::int64_t i = 0; i + 1 < n; ++i) covariance += (epoch[i] - n / 2.0) * (epoch[i + 1] - n / 2.0);
  EXPECT_NEAR(covariance / n / (n / 12.0 * n), 0, 5 / std::sqrt(n));
}

TEST(Order, HeldOutSplitCountsRecordsAndKeepsSamplesWhole) {
  std::vector<std::int32_t> records(300);
  for (std::size_t i = 0; i < records.size(); ++i) records[i] = 1 + static_cast<std::int32_t>(i % 4);  // 750
  const auto split = split_held_out(records, 0.2, 1);
  const auto sum = [&](const std::vector<std::int64_t>& part) {
    return std::accumulate(part.begin(), part.end(), 0,
                           [&](int all, std::int64_t i) { return all + records[static_cast<std::size_t>(i)]; });
  };
  EXPECT_LE(sum(split.held_out), 150);
  EXPECT_GT(sum(split.held_out), 146);
  EXPECT_EQ(sum(split.held_out) + sum(split.train), 750);
  EXPECT_EQ(split.held_out.size() + split.train.size(), 300u);
  records[7] = 400;  // too large for a tenth
  const auto tenth = split_held_out(records, 0.1, 1);
  EXPECT_FALSE(std::count(tenth.held_out.begin(), tenth.held_out.end(), 7));
  EXPECT_EQ(sum(tenth.held_out), 115);
  EXPECT_THAT(refusal([] { split_held_out(std::vector<std::int32_t>{8, 9}, 0.2, 1); }), testing::HasSubstr("none to hold out"));
}

TEST(Order, HeldOutSplitIsExactDisjointAndSeeded) {
  const auto split = split_held_out(std::vector<std::int32_t>(2312, 1), 0.3, 1);
  EXPECT_EQ(split.held_out.size(), 694u);
  EXPECT_EQ(split.train.size(), 2312u - 694u);
  auto both = split.train;
  both.insert(both.end(), split.held_out.begin(), split.held_out.end());
  std::sort(both.begin(), both.end());
  EXPECT_EQ(both, identity(2312));
  EXPECT_TRUE(std::is_sorted(split.train.begin(), split.train.end()) && std::is_sorted(split.held_out.begin(), split.held_out.end()));
  EXPECT_EQ(split_held_out(std::vector<std::int32_t>(2312, 1), 0.3, 1).held_out, split.held_out);
  EXPECT_NE(split_held_out(std::vector<std::int32_t>(2312, 1), 0.3, 2).held_out, split.held_out);
  EXPECT_TRUE(split_held_out(std::vector<std::int32_t>(10, 1), 0, 1).held_out.empty());
  EXPECT_THAT(refusal([] { split_held_out(std::vector<std::int32_t>(10, 1), 1.0, 1); }), testing::HasSubstr("below 1"));
  EXPECT_THAT(refusal([] { split_held_out(std::vector<std::int32_t>(1, 1), 0.9, 1); }),
              testing::HasSubstr("a held-out share of 0.9 is 1 of 1 samples, which leaves none to learn from"));
  EXPECT_THAT(refusal([] { split_held_out(std::vector<std::int32_t>(2, 1), 0.1, 1); }),
              testing::HasSubstr("0.1 is 0 of 2 samples, which leaves none to hold out"));
  EXPECT_THAT(refusal([] { take(0, 1, 0, 1); }), testing::HasSubstr("holds none"));
}

}  // namespace
}  // namespace collimate
