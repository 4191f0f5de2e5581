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

}  // namespace
}  // namespace collimate
