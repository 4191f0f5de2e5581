#include "collimate/collectives/ordered_sum.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "collectives/ordered_sum_oracle.hpp"
#include "support/numbers.hpp"

namespace collimate {
namespace {

constexpr std::int64_t elements = 101;
const std::vector<Part> ranges{{0, 37}, {37, 1}, {38, 63}};

/// A sum of three ranges, of which the second is computed where the sum rests.
struct OneRank {
  explicit OneRank(std::int64_t most_grains, std::int64_t group = 1, Memory memory = Memory::device)
      : steps{.most_grains = most_grains, .group = group, .memory = memory},
        sum(plan, "gradient", ranges, steps, [this](int range, int buffer, bool host) { return room(range, buffer, host); }) {
    const Shape shape{std::max<std::int64_t>(1, OrderedSum::room_needed(steps)), elements};
    rooms[0] = plan.reserve("room", shape, DType::f32, Lifetime::update);
    rooms[1] = plan.reserve("room", shape, DType::f32, Lifetime::update, Memory::host);
    plan.commit();
  }
  Tensor room(int range, int buffer, bool host) {
    most_room = std::max(most_room, buffer + 1);
    return plan.at(rooms[host], {OrderedSum::room_needed(steps), elements}).slice(buffer, 1).reshape({elements}).slice(0, ranges[range].count);
  }
  void push(int range, std::int64_t grain, float scale = 1.0f) {
    const Tensor opened = sum.open(range, range == 1);
    std::vector<float> gradient = test::numbers_of(opened);  // zeros
    for (std::int64_t i = 0; i < opened.count(); ++i) gradient[i] += scale * gradient_of(grain, ranges[range].begin + i);
    test::set_numbers(opened, gradient);
    sum.push(range);
  }
  /// All grains of a step in groups; the gradient of one is dropped.
  void step(std::int64_t grains, std::int64_t dropped = -1) {
    sum.begin({0, grains});
    for (std::int64_t first = 0; first < grains; first += steps.group)
      for (int range = 2; range >= 0; --range)
        for (std::int64_t grain = first; grain < std::min(grains, first + steps.group); ++grain) push(range, grain, grain == dropped ? 0.0f : 1.0f);
  }
  std::vector<float> finish(std::int64_t grains) { return test::numbers_of(sum.finish(*alone, grains)); }
  std::unique_ptr<Device> device = make_device();
  std::unique_ptr<Communicator> alone = make_single_communicator();
  MemoryPlan plan{*device};
  OrderedSum::Steps steps;
  Slot rooms[2];
  int most_room = 0;
  OrderedSum sum;
};

std::vector<float> oracle(std::int64_t grains) {
  std::vector<float> all;
  for (std::int64_t i = 0; i < elements; ++i) all.push_back(ordered_sum_oracle(grains, i));
  return all;
}

TEST(OrderedSum, EqualsTheRecursionForEveryNumberOfGrainsAndGroups) {
  for (const Memory memory : {Memory::device, Memory::host})
    for (const std::int64_t group : {1, 2, 4, 16, 64}) {
      OneRank one(21, group, memory);
      for (std::int64_t grains = 0; grains <= 21; ++grains) {
        one.step(grains);
        EXPECT_EQ(one.finish(grains), oracle(grains)) << grains << " grains in groups of " << group << ", memory " << static_cast<int>(memory);
      }
      EXPECT_EQ(one.most_room, OrderedSum::room_needed(one.steps)) << "groups of " << group << ", memory " << static_cast<int>(memory);
    }
}

TEST(OrderedSum, OtherOrdersAndMissingGradientsDiffer) {
  std::vector<float> left_to_right(elements);
  for (std::int64_t grain = 0; grain < 13; ++grain)
    for (std::int64_t i = 0; i < elements; ++i) left_to_right[i] += gradient_of(grain, i);
  EXPECT_NE(left_to_right, oracle(13)) << "the test's numbers cannot tell orders apart";
  for (std::int64_t dropped = 0; dropped < 13; ++dropped) {
    OneRank one(13);
    one.step(13, dropped);
    EXPECT_NE(one.finish(13), oracle(13)) << "without grain " << dropped;
  }
}

TEST(OrderedSum, RefusesAStepThatLacksGrains) {
  OneRank one(4);
  one.step(3);
  EXPECT_THROW(one.finish(4), Error);
  EXPECT_THROW(one.sum.push(0), Error);
  EXPECT_THROW(one.sum.open(0), Error) << "the step has three grains";
  one.sum.begin({0, 4});
  one.sum.open(0);
  EXPECT_THROW(one.sum.open(0), Error);
  EXPECT_THROW(one.finish(4), Error);
}

TEST(OrderedSum, NodesAreTheLargestAlignedPieces) {
  EXPECT_EQ(nodes_of({0, 13}), (std::vector<SumNode>{{0, 3}, {8, 2}, {12, 0}}));
  EXPECT_EQ(nodes_of({1, 6}), (std::vector<SumNode>{{1, 0}, {2, 1}, {4, 1}, {6, 0}}));
  EXPECT_EQ(nodes_of({8, 4}), (std::vector<SumNode>{{8, 2}}));
  EXPECT_TRUE(nodes_of({5, 0}).empty());
}

/// What a run needs: places that last at each border between groups, and all that a range holds at once.
struct Needs {
  std::int64_t lasting = 0, room = 0;
};
Needs needs_of(std::int64_t first, std::int64_t run, const OrderedSum::Steps& steps) {
  const auto begins = [&](std::int64_t count) {  // of the nodes of the first `count` grains
    std::set<std::int64_t> out;
    for (const SumNode& node : nodes_of({first, count})) out.insert(node.first);
    return out;
  };
  Needs needs;
  for (std::int64_t done = 0; done < run; done += steps.group) {
    const std::int64_t end = std::min(done + steps.group, run);
    std::set<std::int64_t> before = begins(done), lasting = before, after = begins(end);
    if (end == run && steps.ranks == 1) after = {first};
    lasting.insert(after.begin(), after.end());
    needs.lasting = std::max<std::int64_t>(needs.lasting, std::ssize(lasting));
    for (std::int64_t count = done; count < end; ++count) {  // the nodes and the open one that are not where they last
      std::set<std::int64_t> held = begins(count);
      held.insert(first + count);
      std::int64_t room = 0;
      for (const std::int64_t begin : held) room += !before.contains(begin) && (steps.memory == Memory::host || !after.contains(begin));
      needs.room = std::max(needs.room, room);
    }
  }
  return needs;
}

TEST(OrderedSum, PlannedBuffersSufficeAndOnOneRankOneFewerWouldNot) {
  for (const Memory memory : {Memory::device, Memory::host})
    for (int ranks = 1; ranks <= 3; ++ranks)
      for (const std::int64_t group : {1, 2, 8, 64})
        for (std::int64_t most = 1; most <= 40; ++most) {
          const OrderedSum::Steps steps{.most_grains = most, .ranks = ranks, .group = group, .memory = memory};
          Needs needs;  // over every place a run may start, and every length
          for (std::int64_t first = 0; first <= (ranks > 1 ? 64 : 0); ++first)
            for (std::int64_t run = 1; run <= steps.run(); ++run) {
              const Needs one = needs_of(first, run, steps);
              needs = {std::max(needs.lasting, one.lasting), std::max(needs.room, one.room)};
            }
          const std::string what = fmt::format("{} grains, {} ranks, groups of {}, memory {}", most, ranks, group, static_cast<int>(memory));
          const std::int64_t buffers = OrderedSum::buffers_needed(steps), room = OrderedSum::room_needed(steps);
          EXPECT_LE(needs.lasting, buffers) << what;
          EXPECT_LE(needs.room, room) << what;
          if (ranks > 1 && group > 1) continue;  // bounds
          EXPECT_EQ(needs.lasting, buffers) << what;
          EXPECT_EQ(needs.room, room) << what;
        }
  EXPECT_EQ(OrderedSum::buffers_needed({.most_grains = 16}), 4);
  EXPECT_EQ(OrderedSum::buffers_needed({.most_grains = 16, .group = 16}), 1);
  EXPECT_EQ(OrderedSum::room_needed({.most_grains = 16, .group = 16}), 4);
}

TEST(OrderedSum, PlansItsMemoryExactly) {
  const auto device = make_device();
  MemoryPlan plan(*device);
  OrderedSum sum(plan, "gradient", {{0, 600}, {600, 400}}, {.most_grains = 8}, {});
  EXPECT_EQ(plan.planned_bytes(Memory::device), 3u * 1008 * 4);
}

}  // namespace
}  // namespace collimate
