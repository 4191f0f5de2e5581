#include "collimate/kernels/rows.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace collimate::kernels {
namespace {

TEST(Rows, TheLastBlockIsPaddedToSixteen) {
  for (std::int64_t n = 0; n < 1000; ++n) {
    const std::int64_t last = n % 256;
    EXPECT_EQ(padded_rows(n), last == 0 ? n : n - last + std::max<std::int64_t>(last, 16));
  }
}

}  // namespace
}  // namespace collimate::kernels
