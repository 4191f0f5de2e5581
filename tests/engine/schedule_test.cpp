#include "collimate/engine/schedule.hpp"

#include <gtest/gtest.h>

namespace collimate {
namespace {

// Drawn by hand after figure 4 of Narayanan et al. (2021): stage s starts 3 - s forwards ahead, then alternates.
TEST(Schedule, OfFourStagesAndSixGrains) {
  EXPECT_EQ(schedule_text(4, 6),
            "  stage 0  F0 F1 F2 F3 B0 F4 B1 F5 B2 B3 B4 B5\n"
            "  stage 1  F0 F1 F2 B0 F3 B1 F4 B2 F5 B3 B4 B5\n"
            "  stage 2  F0 F1 B0 F2 B1 F3 B2 F4 B3 F5 B4 B5\n"
            "  stage 3  F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5\n");
}

TEST(Schedule, OfFewerGrainsThanStages) {
  EXPECT_EQ(schedule_text(4, 2),
            "  stage 0  F0 F1 B0 B1\n"
            "  stage 1  F0 F1 B0 B1\n"
            "  stage 2  F0 F1 B0 B1\n"
            "  stage 3  F0 B0 F1 B1\n");
  EXPECT_EQ(schedule_text(1, 2), "  stage 0  F0 B0 F1 B1\n");
}

}  // namespace
}  // namespace collimate
