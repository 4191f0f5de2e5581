#include <gtest/gtest.h>

#include "collimate/model/transformer.hpp"
#include "support/small_config.hpp"

namespace collimate {
namespace {

std::vector<std::int64_t> blocks_of(const ModelConfig& config, Head head, int stages) {
  std::vector<std::int64_t> counts;
  std::int64_t next = 0;
  for (int stage = 0; stage < stages; ++stage) {
    const Part part = stage_blocks(config, head, stage, stages);
    EXPECT_EQ(part.begin, next) << "stages follow each other";
    next += part.count;
    counts.push_back(part.count);
  }
  EXPECT_EQ(next, config.layers);
  return counts;
}

// By hand. A value head costs nothing, so 5 blocks of two stages are at best 3 and 2: of two equally good divisions the last stage, which
// never waits for a gradient, gets more.
TEST(StageBlocks, TheLastStageGetsMoreWhereTwoDivisionsAreEqual) {
  using Counts = std::vector<std::int64_t>;
  ModelConfig config = test::small_llama();
  config.layers = 5;
  EXPECT_EQ(blocks_of(config, Head::value, 1), Counts({5}));
  EXPECT_EQ(blocks_of(config, Head::value, 2), Counts({2, 3}));
  EXPECT_EQ(blocks_of(config, Head::value, 3), Counts({1, 2, 2}));
  EXPECT_EQ(blocks_of(config, Head::value, 5), Counts({1, 1, 1, 1, 1}));
  config.layers = 8;
  EXPECT_EQ(blocks_of(config, Head::value, 2), Counts({4, 4}));
  // A policy's head has V C products a token, a block C (C + Hkv D) 2 + 3 C M here: with V = 2 blocks' worth, 8 + 2 are shared as 5 and 3 + 2.
  config.width = 32, config.heads = config.kv_heads = 4, config.head_size = 8, config.mlp = 32;  // a block: 7 x 32 x 32
  config.vocabulary = 2 * 7 * 32;
  EXPECT_EQ(blocks_of(config, Head::policy, 2), Counts({5, 3}));
}

}  // namespace
}  // namespace collimate
