#include "collimate/device/memory_plan.hpp"

#include <gtest/gtest.h>

namespace collimate {
namespace {

TEST(MemoryPlan, PhasesOverlayAndMeasuredEqualsPlanned) {
  auto device = make_cpu_device();
  MemoryPlan plan(*device);
  const Slot weights = plan.reserve("weights", Shape{10, 10}, DType::f32);
  const Slot cache = plan.reserve("cache", 1000, Lifetime::rollout);
  const Slot saved = plan.reserve("saved", 5000, Lifetime::update);
  const Slot more = plan.reserve("more", 64, Lifetime::update);
  const std::size_t expected = 448 + 5056 + 64;
  EXPECT_EQ(plan.planned_bytes(Memory::device), expected);
  plan.commit();
  EXPECT_EQ(plan.allocated_bytes(), expected);
  EXPECT_EQ(plan.at(cache, {250}).data(), plan.at(saved, {250}).data());
  EXPECT_EQ(static_cast<std::byte*>(plan.at(more, {16}).data()) - static_cast<std::byte*>(plan.at(saved, {16}).data()), 5056);
  EXPECT_EQ(static_cast<std::byte*>(plan.at(cache, {16}).data()) - static_cast<std::byte*>(plan.at(weights, {16}).data()), 448);
  EXPECT_THROW(plan.at(weights, {200}), Error);
  EXPECT_THROW(plan.reserve("late", 1), Error);
}

TEST(MemoryPlan, RefusesWhatDoesNotFitAndSaysWhatIsLarge) {
  auto device = make_cpu_device();
  MemoryPlan plan(*device);
  plan.reserve("small", 100);
  plan.reserve("huge", 100 << 20);
  try {
    plan.commit(50 << 20);
    FAIL() << "a plan above the limit was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::does_not_fit);
    EXPECT_NE(std::string(error.what()).find("huge (100.0 MiB)"), std::string::npos) << error.what();
  }
}

TEST(MemoryPlan, RefusesMoreThanTheMachineHas) {
  auto device = make_cpu_device();
  MemoryPlan plan(*device);
  plan.reserve("huge", std::size_t{1} << 50);
  try {
    plan.check_limit(0);
    FAIL() << "a petabyte was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::does_not_fit);
    EXPECT_NE(std::string(error.what()).find("the machine has"), std::string::npos) << error.what();
  }
}

TEST(Tensor, SliceAndReshapeAreViews) {
  auto device = make_cpu_device();
  Buffer buffer(*device, 24 * 4, Memory::device);
  const Tensor whole(buffer.data(), DType::f32, {4, 6}, *device);
  const Tensor rows = whole.slice(1, 2);
  EXPECT_EQ(rows.as<float>(), whole.as<float>() + 6);
  EXPECT_EQ(rows.shape(), (Shape{2, 6}));
  EXPECT_EQ(whole.reshape({2, 3, 4}).count(), 24);
  EXPECT_THROW(whole.reshape({5, 5}), Error);
  EXPECT_THROW(whole.slice(3, 2), Error);
  EXPECT_THROW(whole.as<double>(), Error);
}

}  // namespace
}  // namespace collimate
