#include "collimate/params/itinerary.hpp"

#include <gtest/gtest.h>

#include "collimate/device/dry_device.hpp"
#include "collimate/params/store.hpp"

namespace collimate {
namespace {

TEST(Itinerary, LooksAheadOverPassesToTheEnd) {
  const std::vector<int> forward = {0, 2, 5}, none, backward = {5, 2};
  Itinerary itinerary;
  EXPECT_TRUE(itinerary.done());
  EXPECT_EQ(itinerary.ahead(0), -1);
  std::vector<int> all;
  for (const auto* pass : {&forward, &none, &backward, &forward}) {
    itinerary.add(*pass);
    all.insert(all.end(), pass->begin(), pass->end());
  }
  for (std::size_t at = 0; at < all.size(); ++at) {
    EXPECT_FALSE(itinerary.done());
    for (std::size_t k = 0; k < 10; ++k) EXPECT_EQ(itinerary.ahead(k), at + k < all.size() ? all[at + k] : -1) << at << " " << k;
    itinerary.advance();
  }
  EXPECT_TRUE(itinerary.done());
  itinerary.add(backward);
  EXPECT_EQ(itinerary.ahead(0), 5);
  itinerary.clear();
  EXPECT_TRUE(itinerary.done());
}

/// A frozen model of three chunks of 1, 2 and 3 blocks whose values rest on the host.
struct Streamed {
  Streamed() : store("model", layout(), plan, Division{.host = {.values = 1}}) { plan.commit(); }
  static ParameterLayout layout() {
    ParameterLayout layout(1);
    for (const std::int64_t blocks : {1, 2, 3}) {
      layout.open_chunk(fmt::format("chunk {}", blocks));
      layout.add(fmt::format("weight {}", blocks), {blocks * 1024}, false, Initial{});
      layout.close_chunk();
    }
    return layout;
  }
  double fetched_blocks() { return device->meter().fetched / 4096; }
  std::unique_ptr<DryDevice> device = make_dry_device();
  MemoryPlan plan{*device};
  ParameterStore store;
};

TEST(Windows, WhatComesNextIsBroughtAheadWhereItIsKnown) {
  Streamed one;
  { const Lease lease = one.store.fetch(0); }
  EXPECT_EQ(one.fetched_blocks(), 1) << "nobody knows what comes";
  const std::vector<int> route = {1, 2, 0};
  one.store.itinerary().add(route);
  {
    const Lease lease = one.store.fetch(1);
    EXPECT_EQ(one.fetched_blocks(), 1 + 2 + 3) << "the third one comes meanwhile";
    EXPECT_THROW(one.store.fetch(0), Error) << "out of order";
  }
  { const Lease lease = one.store.fetch(2); }
  EXPECT_EQ(one.fetched_blocks(), 1 + 2 + 3 + 1) << "it was there; the first one comes again";
  { const Lease lease = one.store.fetch(0); }
  EXPECT_EQ(one.fetched_blocks(), 7);
  EXPECT_TRUE(one.store.itinerary().done());
}

TEST(Windows, ALeasedUnitStaysAndOneMoreIsRefused) {
  Streamed one;
  const Lease first = one.store.fetch(0), second = one.store.fetch(1);
  EXPECT_THROW(one.store.fetch(2), Error);
  EXPECT_NE(first.value.data(), second.value.data());
  const Lease again = one.store.fetch(0);
  EXPECT_EQ(again.value.data(), first.value.data());
  EXPECT_EQ(one.fetched_blocks(), 3);
}

TEST(Windows, StoresThatShareThemForgetWhatTheOtherHad) {
  const auto device = make_dry_device();
  MemoryPlan plan(*device);
  Windows shared(plan, "");
  const Division division{.host = {.values = 1}};
  ParameterStore one("one", Streamed::layout(), plan, division, {.windows = &shared}), two("two", Streamed::layout(), plan, division, {.windows = &shared});
  const std::size_t before = plan.planned_bytes(Memory::device);
  shared.reserve();
  EXPECT_EQ(plan.planned_bytes(Memory::device) - before, 2 * 3 * 4096u) << "two windows for the largest unit of either";
  plan.commit();
  const auto fetched = [&] { return device->meter().fetched / 4096; };
  { const Lease lease = one.fetch(1); }
  { const Lease lease = one.fetch(1); }
  EXPECT_EQ(fetched(), 2) << "it is still there";
  { const Lease lease = two.fetch(1); }
  EXPECT_EQ(fetched(), 4) << "the other store's unit of this number is another one";
  { const Lease lease = one.fetch(1); }
  EXPECT_EQ(fetched(), 6);
  const Lease open = one.fetch(0);
  EXPECT_THROW(two.fetch(0), Error) << "used by both at once";
}

TEST(Windows, AShareOnTheHostIsTheLastUnits) {
  const ParameterLayout layout = Streamed::layout();  // of 1, 2 and 3 blocks
  const auto on_host = [&](double share) { return layout.last_units(share); };
  EXPECT_EQ(on_host(0), (std::vector<bool>{false, false, false}));
  EXPECT_EQ(on_host(0.01), (std::vector<bool>{false, false, true}));
  EXPECT_EQ(on_host(0.5), (std::vector<bool>{false, false, true}));
  EXPECT_EQ(on_host(0.51), (std::vector<bool>{false, true, true}));
  EXPECT_EQ(on_host(0.9), (std::vector<bool>{true, true, true}));
  EXPECT_EQ(on_host(1), (std::vector<bool>{true, true, true}));
  const auto device = make_dry_device();
  MemoryPlan plan(*device);
  ParameterStore store("model", layout, plan, Division{.host = {.values = 0.5}});
  plan.commit();
  for (const int unit : {0, 1, 0}) { const Lease lease = store.fetch(unit); }
  EXPECT_EQ(device->meter().fetched, 0) << "these rest on the device";
  { const Lease lease = store.fetch(2); }
  EXPECT_EQ(device->meter().fetched, 3 * 4096);
}

}  // namespace
}  // namespace collimate
