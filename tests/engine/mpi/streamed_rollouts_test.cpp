#include <gtest/gtest.h>

#include "comm/mpi_test.hpp"
#include "support/small_model.hpp"

// Rollouts with values that replicas share and gather for each token, where the replicas have unequal work.
namespace collimate::test {
namespace {

Communicator& ranks() { return test_world()->ranks(); }

struct Speaker : OneEngine {
  Speaker(const ModelConfig& config, const Division& division, std::int64_t slots)
      : OneEngine(config, Head::policy, division, {.rows = 128, .slots = slots, .capacity = config.context + 1, .holds_rollouts = false}, 3) {
    roughen(*this);
  }
};

std::vector<Prompt> some_prompts(const ModelConfig& config, std::size_t count) {
  std::vector<Prompt> prompts;
  for (const auto& sequence : some_sequences(config.vocabulary, std::vector<int>{3, 9, 1, 12, 5, 2, 7, 4}))
    if (prompts.size() < count) prompts.push_back({{sequence.begin(), sequence.end()}, 40 + prompts.size()});
  return prompts;
}

std::vector<Continuation> generate(Engine& engine, std::size_t prompts, std::int64_t max_new) {
  GenerateOptions how;
  how.max_new = max_new;
  how.key = RandomKey(7, Purpose::sampling);
  const auto asked = some_prompts(engine.transformer().config(), prompts);
  return engine.generate(asked, how);
}

struct Work {
  std::size_t prompts;
  std::int64_t max_new;
};

// The tokens of each replica are those of a rank alone, and nobody waits for a replica that has no sequence, or ends 20 tokens before the others.
TEST(StreamedRollouts, ReplicasWithUnequalWorkDoNotHang) {
  const ProcessGrid grid(*test_world(), {1, ranks().size(), 1});
  const int me = grid.coord().along(Axis::data);
  const std::vector<std::vector<Work>> works = {
      {{0, 4}, {5, 24}, {2, 4}, {8, 24}},   // the first has nothing to do
      {{3, 24}, {1, 4}, {0, 4}, {2, 9}},    // some end early
      {{8, 1}, {1, 24}, {8, 2}, {0, 24}},   // many short ones beside one that is long
      {{0, 3}, {0, 3}, {0, 3}, {0, 3}},     // nobody has anything to do
  };
  for (const ModelConfig& config : {small_llama(), small_gpt2()})
    for (const HostShares& host : {HostShares{}, HostShares{1, 1}, HostShares{0.4, 0.4}}) {
      Speaker alone(config, {}, 2), together(config, {.grid = &grid, .zero = 3, .host = host}, 2);
      EXPECT_EQ(together.engine.store().gathers(), ranks().size() > 1);
      for (const auto& work : works) {
        const Work mine = work[static_cast<std::size_t>(me) % work.size()];
        const auto expected = generate(alone.engine, mine.prompts, mine.max_new), found = generate(together.engine, mine.prompts, mine.max_new);
        ASSERT_EQ(found.size(), mine.prompts);
        for (std::size_t i = 0; i < found.size(); ++i) {
          EXPECT_EQ(found[i].tokens, expected[i].tokens);
          EXPECT_EQ(found[i].logprobs, expected[i].logprobs);
        }
      }
    }
}

}  // namespace
}  // namespace collimate::test
