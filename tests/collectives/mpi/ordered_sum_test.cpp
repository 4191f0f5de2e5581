#include "collimate/collectives/ordered_sum.hpp"

#include "collimate/collectives/shares.hpp"
#include "collectives/ordered_sum_oracle.hpp"
#include "comm/mpi_test.hpp"
#include "support/numbers.hpp"

namespace collimate {
namespace {

Communicator& ranks() { return test_world()->ranks(); }

/// How many elements of the step's sum differ from the brute-force recursion; rank `dropping` drops its first gradient.
std::int64_t wrong_elements(std::int64_t elements, std::int64_t grains, std::int64_t most_grains, int dropping = -1, std::int64_t group = 1) {
  const auto device = make_device();
  MemoryPlan plan(*device);
  const std::vector<Part> ranges{{0, elements / 3}, {elements / 3, elements - elements / 3}};
  const OrderedSum::Steps steps{.most_grains = most_grains, .ranks = ranks().size(), .group = group};
  Slot rooms;
  OrderedSum sum(plan, "gradient", ranges, steps, [&](int range, int buffer, bool) {
    return plan.at(rooms, {OrderedSum::room_needed(steps), elements}).slice(buffer, 1).reshape({elements}).slice(0, ranges[range].count);
  });
  rooms = plan.reserve("room", {std::max<std::int64_t>(1, OrderedSum::room_needed(steps)), elements}, DType::f32, Lifetime::update);
  plan.commit();
  std::int64_t wrong = 0;
  for (int step = 0; step < 2; ++step) {  // the second step meets the first one's remains
    const Part run = part_of(grains, ranks().rank(), ranks().size());
    sum.begin(run);
    for (std::int64_t first = run.begin; first < run.begin + run.count; first += group)
      for (int range = 0; range < 2; ++range)
        for (std::int64_t grain = first; grain < std::min(first + group, run.begin + run.count); ++grain) {
          const Tensor opened = sum.open(range);
          const bool dropped = grain == run.begin && ranks().rank() == dropping;
          std::vector<float> gradient = test::numbers_of(opened);  // zeros
          for (std::int64_t i = 0; i < opened.count() && !dropped; ++i) gradient[i] += gradient_of(grain, ranges[range].begin + i);
          test::set_numbers(opened, gradient);
          sum.push(range);
        }
    const Tensor whole = sum.finish(ranks(), grains);
    for (const Part& range : ranges) gather_shares(ranks(), whole.slice(range.begin, range.count), device->stream());
    const std::vector<float> total = test::numbers_of(whole);
    for (std::int64_t i = 0; i < elements; ++i) wrong += total[i] != ordered_sum_oracle(grains, i);
  }
  return wrong;
}

TEST(OrderedSum, BitEqualToOneRankForAllGrainsAndRanks) {
  for (std::int64_t grains = 0; grains <= 13; ++grains)
    for (const std::int64_t elements : {1, 3, 257})
      EXPECT_EQ(wrong_elements(elements, grains, 13), 0) << grains << " grains, " << elements << " elements";
  EXPECT_EQ(wrong_elements(100, 40, 40), 0);
  for (const std::int64_t group : {2, 4, 64})
    for (const std::int64_t grains : {1, 6, 13, 40}) EXPECT_EQ(wrong_elements(100, grains, 40, -1, group), 0) << grains << " grains in groups of " << group;
  EXPECT_EQ(wrong_elements(0, 5, 5), 0);
}

TEST(OrderedSum, ManyRoundsOfTheExchange) { EXPECT_EQ(wrong_elements(1000003, 5, 13), 0); }

TEST(OrderedSum, ADroppedGradientIsCaught) { EXPECT_GT(wrong_elements(257, 7, 7, ranks().size() - 1), 0); }

TEST(OrderedSum, ALackingGrainIsASentenceOnItsRank) {
  const auto device = make_device();
  MemoryPlan plan(*device);
  OrderedSum sum(plan, "gradient", {{0, 10}}, {.most_grains = 8, .ranks = ranks().size()}, {});
  plan.commit();
  sum.begin({});
  EXPECT_THROW(sum.finish(ranks(), 8), Error);
}

}  // namespace
}  // namespace collimate

int main(int argc, char** argv) { return collimate::run_mpi_tests(argc, argv); }
