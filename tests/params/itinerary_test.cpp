#include "collimate/params/itinerary.hpp"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace collimate
