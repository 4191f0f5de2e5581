#include "collimate/collectives/ordered_sum.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "collectives/ordered_sum_oracle.hpp"
#include "support/numbers.hpp"

namespace collimate {
namespace {

constexpr std::int64_t elements = 101;

struct OneRank {
  explicit OneRank(std::int64_t most_grains) : sum(plan, "gradient", elements, most_grains, 1) { plan.commit(); }
  void push(std::int64_t grain, float scale = 1.0f) {
    const Tensor opened = sum.open(stream);
    std::vector<float> gradient = test::numbers_of(opened);  // zeros
    for (std::int64_t i = 0; i < elements; ++i) gradient[i] += scale * gradient_of(grain, i);
    test::set_numbers(opened, gradient);
    sum.push(stream);
  }
  std::vector<float> finish(std::int64_t grains) {
    const Tensor total = sum.finish(*alone, grains, stream);
    return test::numbers_of(total);
  }
  std::unique_ptr<Device> device = make_device();
  std::unique_ptr<Communicator> alone = make_single_communicator();
  MemoryPlan plan{*device};
  OrderedSum sum;
  Stream& stream = device->stream();
};

std::vector<float> oracle(std::int64_t grains) {
  std::vector<float> all;
  for (std::int64_t i = 0; i < elements; ++i) all.push_back(ordered_sum_oracle(grains, i));
  return all;
}

TEST(OrderedSum, EqualsTheRecursionForEveryNumberOfGrains) {
  OneRank one(40);
  for (std::int64_t grains = 0; grains <= 40; ++grains) {
    one.sum.begin(0);
    for (std::int64_t grain = 0; grain < grains; ++grain) one.push(grain);
    EXPECT_EQ(one.finish(grains), oracle(grains)) << grains << " grains";
  }
}

TEST(OrderedSum, OtherOrdersAndMissingGradientsDiffer) {
  std::vector<float> left_to_right(elements);
  for (std::int64_t grain = 0; grain < 13; ++grain)
    for (std::int64_t i = 0; i < elements; ++i) left_to_right[i] += gradient_of(grain, i);
  EXPECT_NE(left_to_right, oracle(13)) << "the test's numbers cannot tell orders apart";
  for (std::int64_t dropped = 0; dropped < 13; ++dropped) {
    OneRank one(13);
    one.sum.begin(0);
    for (std::int64_t grain = 0; grain < 13; ++grain) one.push(grain, grain == dropped ? 0.0f : 1.0f);
    EXPECT_NE(one.finish(13), oracle(13)) << "without grain " << dropped;
  }
}

TEST(OrderedSum, RefusesAStepThatLacksGrains) {
  OneRank one(4);
  one.sum.begin(0);
  for (std::int64_t grain = 0; grain < 3; ++grain) one.push(grain);
  EXPECT_THROW(one.finish(4), Error);
  EXPECT_THROW(one.sum.push(one.stream), Error);
  one.sum.open(one.stream);
  EXPECT_THROW(one.sum.open(one.stream), Error);
  EXPECT_THROW(one.finish(3), Error);
}

TEST(OrderedSum, NodesAreTheLargestAlignedPieces) {
  EXPECT_EQ(nodes_of({0, 13}), (std::vector<SumNode>{{0, 3}, {8, 2}, {12, 0}}));
  EXPECT_EQ(nodes_of({1, 6}), (std::vector<SumNode>{{1, 0}, {2, 1}, {4, 1}, {6, 0}}));
  EXPECT_EQ(nodes_of({8, 4}), (std::vector<SumNode>{{8, 2}}));
  EXPECT_TRUE(nodes_of({5, 0}).empty());
}

TEST(OrderedSum, PlannedBuffersSufficeAndOneFewerWouldNot) {
  for (int ranks = 1; ranks <= 3; ++ranks)
    for (std::int64_t most = 1; most <= 64; ++most) {
      std::int64_t peak = 0;  // over every place a run of that length may start: nodes before a grain, and the grain
      const std::int64_t run = (most + ranks - 1) / ranks;
      for (std::int64_t first = 0; first <= (ranks > 1 ? 128 : 0); ++first)
        for (std::int64_t count = 0; count < run; ++count) peak = std::max<std::int64_t>(peak, nodes_of({first, count}).size() + 1);
      EXPECT_EQ(OrderedSum::buffers_needed(most, ranks), peak) << most << " grains, " << ranks << " ranks";
    }
  EXPECT_EQ(OrderedSum::buffers_needed(0, 1), 1);
  EXPECT_EQ(OrderedSum::buffers_needed(8, 1), 4);
}

TEST(OrderedSum, PlansItsMemoryExactly) {
  const auto device = make_device();
  MemoryPlan plan(*device);
  OrderedSum sum(plan, "gradient", 1000, 8, 1);
  EXPECT_EQ(plan.planned_bytes(Memory::device), 4u * 1008 * 4);
}

}  // namespace
}  // namespace collimate
