#include <gtest/gtest.h>

#include <cmath>

#include "collimate/model/pass.hpp"
#include "collimate/model/transformer.hpp"
#include "support/small_config.hpp"

namespace collimate {
namespace {

float partial(int shard, std::int64_t i) { return static_cast<float>(std::sin(1.3 + 2.7 * shard + 0.9 * static_cast<double>(i))); }

float tree(int first, int shards, std::int64_t i) {
  return shards == 1 ? partial(first, i) : tree(first, shards / 2, i) + tree(first + shards / 2, shards / 2, i);
}

TEST(Shards, PartialSumsAddInABinaryTree) {
  const auto device = make_cpu_device();
  for (const int shards : {1, 2, 4, 8}) {
    std::vector<std::vector<float>> buffers(4, std::vector<float>(10 * 6));
    const auto tensor = [&](int b, std::int64_t rows) { return Tensor(buffers[b].data(), DType::f32, {rows, 6}, *device); };
    ShardTree sum{.shards = shards};
    for (int v = 1, b = 1; v < shards; v *= 2) sum.room.push_back(tensor(b++, 10));
    const Tensor out = tensor(0, 7);  // fewer rows than the scratch
    int next = 0;
    sum_over_shards(out, sum, device->stream(), [&](int shard, Tensor into) {
      EXPECT_EQ(shard, next++);
      ASSERT_EQ(into.shape(), (Shape{7, 6}));
      for (std::int64_t i = 0; i < into.count(); ++i) into.as<float>()[i] = partial(shard, i);
    });
    EXPECT_EQ(next, shards);
    int unlike = 0;
    for (std::int64_t i = 0; i < out.count(); ++i) {
      EXPECT_EQ(out.as<float>()[i], tree(0, shards, i)) << shards << " shards, element " << i;
      float plain = 0;
      for (int v = 0; v < shards; ++v) plain += partial(v, i);
      unlike += plain != tree(0, shards, i);
    }
    EXPECT_TRUE(shards < 4 || unlike > 0) << "the terms do not tell one order from another";
  }
}

// Three key heads for six query heads: with two shards the second one, with three none, begins inside of a group.
TEST(Shards, AKeyHeadThatTwoShardsReadIsWholeWhicheverTheyAre) {
  const auto parts = [](int shards, std::int64_t heads, std::int64_t kv_heads) {
    ModelConfig config = test::small_qwen2();
    config.heads = heads, config.kv_heads = kv_heads;
    ParameterLayout layout(shards);
    layout.open_chunk("block");
    AttentionLayer::declare(config, layout, "attention");
    layout.close_chunk();
    return layout.parameter("attention.key.weight").parts.size();
  };
  EXPECT_EQ(parts(2, 6, 3), 1u);
  EXPECT_EQ(parts(3, 6, 3), 3u);
  EXPECT_EQ(parts(4, 6, 3), 1u);
  EXPECT_EQ(parts(2, 6, 2), 2u);
}

}  // namespace
}  // namespace collimate
