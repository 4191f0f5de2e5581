#include "collimate/device/strict_device.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "collimate/device/memory_plan.hpp"

namespace collimate {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// Two vectors of four on a strict device, and two in its pinned memory.
struct Room {
  explicit Room(const StrictOptions& options = {}) : device(make_strict_device(options)), plan(*device) {
    for (Slot& slot : here) slot = plan.reserve("here", {4}, DType::f32);
    for (Slot& slot : outside) slot = plan.reserve("outside", {4}, DType::f32, Lifetime::always, Memory::pinned);
    plan.commit();
  }
  Tensor on_device(int i) const { return plan.at(here[i], {4}); }
  Tensor on_host(int i) const { return plan.at(outside[i], {4}); }
  std::vector<float> host(int i) const { return {on_host(i).as<float>(), on_host(i).as<float>() + 4}; }

  std::unique_ptr<Device> device;
  MemoryPlan plan;
  Slot here[2], outside[2];
};

TEST(StrictDevice, NothingRunsBeforeItIsWaitedFor) {
  Room room;
  Stream& stream = room.device->stream();
  std::iota(room.on_host(0).as<float>(), room.on_host(0).as<float>() + 4, 1.0f);
  copy(room.on_device(0), room.on_host(0), stream);
  copy(room.on_host(1), room.on_device(0), stream);
  EXPECT_THAT(room.host(1), ElementsAre(0, 0, 0, 0));
  stream.wait();
  EXPECT_THAT(room.host(1), ElementsAre(1, 2, 3, 4));
  EXPECT_THROW(copy(room.on_device(0), room.on_host(0).slice(0, 3), stream), Error);
}

TEST(StrictDevice, FreshMemoryHoldsNoNumbers) {
  Room room;
  Stream& stream = room.device->stream();
  copy(room.on_host(0), room.on_device(0), stream);
  stream.wait();
  for (const float x : room.host(0)) EXPECT_TRUE(std::isnan(x));
}

TEST(StrictDeviceDeathTest, HostCodeThatTouchesItsMemoryIsStopped) {
  Room room;
  EXPECT_EXIT(room.on_device(1).as<float>()[3] = 1, testing::ExitedWithCode(1), "host code touched memory of the strict device");
  const auto read = [&] { return *static_cast<const volatile float*>(room.on_device(0).as<float>()); };
  EXPECT_EXIT(read(), testing::ExitedWithCode(1), "host code touched memory");
}

/// What a fetch on one lane and its use on another give, with or without the event between them.
std::vector<float> fetched(const StrictOptions& options) {
  Room room(options);
  std::iota(room.on_host(0).as<float>(), room.on_host(0).as<float>() + 4, 1.0f);
  Stream &fetch = room.device->stream(Lane::fetch), &compute = room.device->stream();
  room.on_device(0).zero(compute);
  fetch.wait(compute.record());
  copy(room.on_device(0), room.on_host(0), fetch);
  compute.wait(fetch.record());
  copy(room.on_host(1), room.on_device(0), compute);
  compute.wait();
  return room.host(1);
}

TEST(StrictDevice, EventsOrderLanesAndAMissingOneShows) {
  for (const StrictOrder order : {StrictOrder::random, StrictOrder::copies_first, StrictOrder::kernels_first, StrictOrder::late}) {
    int wrong[2] = {};
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      EXPECT_THAT(fetched({seed, order}), ElementsAre(1, 2, 3, 4));
      for (const int left_out : {0, 1})
        if (fetched({seed, order, Fault{Fault::Kind::wait, left_out}}) != std::vector<float>{1, 2, 3, 4}) ++wrong[left_out];
    }
    // Both events matter in some order that the device may take; the other orders see one of them each.
    if (order == StrictOrder::random) {
      EXPECT_GT(wrong[0], 0);
      EXPECT_GT(wrong[1], 0);
      EXPECT_LT(wrong[1], 20) << "the order is drawn";
    }
    if (order == StrictOrder::late) {
      EXPECT_EQ(wrong[1], 20) << "what nobody waits for comes last";
    }
  }
}

TEST(StrictDevice, ACopyOrAWaitOfTheHostThatIsLeftOutShows) {
  EXPECT_NE(fetched({1, StrictOrder::random, Fault{Fault::Kind::copy, 0}}), (std::vector<float>{1, 2, 3, 4}));
  EXPECT_NE(fetched({1, StrictOrder::random, Fault{Fault::Kind::finish, 0}}), (std::vector<float>{1, 2, 3, 4}));
}

TEST(StrictDevice, WorkThatAnErrorLeavesBehindRunsBeforeItsMemoryGoes) {
  const auto device = make_strict_device({1, StrictOrder::late});
  {
    const Buffer here(*device, 4096, Memory::device), outside(*device, 4096, Memory::pinned);
    const Tensor a(here.data(), DType::f32, {1024}, *device), b(outside.data(), DType::f32, {1024}, device->host());
    copy(a, b, device->stream(Lane::fetch));
    device->stream().wait(device->stream(Lane::fetch).record());
    copy(b, a, device->stream());
  }
  device->stream().wait();  // would touch what is gone
}

TEST(StrictDevice, StreamsThatWaitForEachOtherAreRefused) {
  for (const StrictOrder order : {StrictOrder::random, StrictOrder::late}) {
    const auto device = make_strict_device({1, order});
    Stream &a = device->stream(Lane::fetch), &b = device->stream(Lane::spill);
    a.wait(Event{&b, 1});
    b.wait(Event{&a, 1});
    EXPECT_THROW(a.wait(), Error);
  }
}

TEST(StrictDevice, StagingLetsArraysGoAtOnceAndCutsLongOnes) {
  const auto device = make_strict_device({3, StrictOrder::late});
  MemoryPlan plan(*device);
  const std::int64_t count = 700001;  // eleven pieces, more than the ring has
  const Slot slot = plan.reserve("numbers", {count}, DType::i32);
  plan.commit();
  Stream& stream = device->stream();
  std::vector<std::int32_t> numbers(count), back(count);
  std::iota(numbers.begin(), numbers.end(), 5);
  const std::vector<std::int32_t> expected = numbers;
  plan.staging().put(plan.at(slot, {count}, DType::i32), numbers, stream);
  std::ranges::fill(numbers, 0);
  plan.staging().get(back, plan.at(slot, {count}, DType::i32), stream);
  EXPECT_EQ(back, expected);
  EXPECT_THROW(plan.staging().put(plan.at(slot, {3}, DType::i32), expected, stream), Error);
}

TEST(StrictDevice, APhaseLeavesNoNumbersToTheNextOne) {
  const auto device = make_strict_device();
  MemoryPlan plan(*device);
  const Slot sums = plan.reserve("sums", {4}, DType::f32, Lifetime::update), kept = plan.reserve("kept", {4}, DType::f32),
             cache = plan.reserve("cache", {4}, DType::f32, Lifetime::rollout);
  plan.commit();
  Stream& stream = device->stream();
  const auto first = [&](Slot slot) {
    std::vector<float> out(1);
    plan.staging().get(out, plan.at(slot, {4}).slice(0, 1), stream);
    return out[0];
  };
  EXPECT_THROW(plan.at(sums, {4}), Error);
  plan.enter(Lifetime::update);
  plan.at(sums, {4}).zero(stream);
  plan.at(kept, {4}).zero(stream);
  plan.enter(Lifetime::update);
  EXPECT_EQ(first(sums), 0);
  EXPECT_THROW(plan.at(cache, {4}), Error) << "the cache in an update";
  plan.enter(Lifetime::rollout);
  EXPECT_TRUE(std::isnan(first(cache)));
  EXPECT_EQ(first(kept), 0);
  EXPECT_THROW(plan.at(sums, {4}), Error);
  plan.enter(Lifetime::update);
  EXPECT_TRUE(std::isnan(first(sums)));
}

TEST(StrictDevice, ItsNameInTheEnvironment) {
  EXPECT_EQ(strict_options("strict").seed, 1u);
  EXPECT_EQ(strict_options("strict:7").seed, 7u);
  EXPECT_EQ(strict_options("strict:7:late").order, StrictOrder::late);
  EXPECT_EQ(strict_options("strict:7:late:copy=4").fault->number, 4);
  EXPECT_EQ(strict_options("strict:7:late:copy=4").fault->kind, Fault::Kind::copy);
  for (const char* text : {"cuda", "strict:1:soon", "strict:1:late:2", "strict:1:late:copy=1:1", "strict:1:late:kernel=1", ""}) EXPECT_THROW(strict_options(text), Error) << text;
}

}  // namespace
}  // namespace collimate
