#include "collimate/rlhf/compute_grains.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace collimate::rlhf {
namespace {

std::vector<std::int32_t> count_from(std::int32_t first, std::int64_t n) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(n));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// A token is predicted by the row before it; the first one of all by none.
TEST(Batch, LearnsWhatIsBehindThePromptAndAllButTheFirstTokenWithoutOne) {
  const Batch batch(std::vector<Sequence>{{7, count_from(10, 5), 3}, {8, count_from(20, 4), 0}, {9, count_from(30, 3), 1}}, 64, {});
  EXPECT_EQ(batch.learned_lengths(), (std::vector<std::int64_t>{2, 3, 2}));
  EXPECT_EQ(batch.tokens(), 12);
  ASSERT_EQ(batch.grains(), 1);
  const PackedGrain grain = batch.pack(0);
  const std::vector<std::int32_t> targets(grain.targets.begin(), grain.targets.begin() + 12);
  EXPECT_EQ(targets, (std::vector<std::int32_t>{-1, -1, 13, 14, -1, 21, 22, 23, -1, 31, 32, -1}));
  // Every row tells its place: those that predict come back, in order, and of each sequence the last.
  const auto places = [](std::span<const Grain> grains, const EachValued& each) {
    for (std::size_t g = 0; g < grains.size(); ++g) {
      std::vector<float> rows(grains[g].tokens.size());
      std::iota(rows.begin(), rows.end(), 0.0f);
      each(g, rows);
    }
  };
  EXPECT_EQ(per_token(batch, {}, places), (std::vector<float>{2, 3, 5, 6, 7, 9, 10}));
  EXPECT_EQ(per_sequence(batch, {}, places), (std::vector<float>{4, 8, 11}));
}

// A mask says token by token what is learned.
TEST(Batch, LearnsWhatAMaskNames) {
  const Batch batch(std::vector<Sequence>{{7, count_from(10, 6), 2, {0, 0, 1, 0, 0, 1}}, {8, count_from(20, 3), 1}, {9, count_from(30, 4), 0, {1, 1, 0, 1}}}, 64, {});
  EXPECT_EQ(batch.learned_lengths(), (std::vector<std::int64_t>{2, 2, 2}));
  const PackedGrain grain = batch.pack(0);
  const std::vector<std::int32_t> targets(grain.targets.begin(), grain.targets.begin() + 13);
  EXPECT_EQ(targets, (std::vector<std::int32_t>{-1, 12, -1, -1, 15, -1, 21, 22, -1, 31, -1, 33, -1}));
  const auto places = [](std::span<const Grain> grains, const EachValued& each) {
    std::vector<float> rows(grains[0].tokens.size());
    std::iota(rows.begin(), rows.end(), 0.0f);
    each(0, rows);
  };
  EXPECT_EQ(per_token(batch, {}, places), (std::vector<float>{1, 4, 6, 7, 9, 11}));
}

TEST(Batch, GroupsStayTogetherAndGrainsCoverAllInOrder) {
  std::vector<Sequence> sequences;
  for (int i = 0; i < 7; ++i) sequences.push_back({i, count_from(i, 6), 2});
  const std::vector<std::int64_t> groups = {2, 3, 2};
  const Batch batch(sequences, 20, {}, groups);  // 12, 18 and 12 tokens: one group each
  ASSERT_EQ(batch.grains(), 3);
  for (std::int64_t g = 0, next = 0; g < 3; ++g) {
    EXPECT_EQ(static_cast<std::int64_t>(batch.members(g).size()), groups[g]);
    for (const std::int64_t member : batch.members(g)) EXPECT_EQ(member, next++);
  }
}

}  // namespace
}  // namespace collimate::rlhf
