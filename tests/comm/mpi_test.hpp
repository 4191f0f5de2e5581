#pragma once
#include <gtest/gtest.h>

#include <algorithm>

#include "collimate/comm/world.hpp"

namespace collimate {

/// The world of a test program that runs on all ranks of an mpirun.
inline World*& test_world() {
  static World* world = nullptr;
  return world;
}

/// The main of such a program: rank 0 prints, other ranks print failures only; all give the same exit code.
inline int run_mpi_tests(int argc, char** argv) {
  World world;
  test_world() = &world;
  testing::InitGoogleTest(&argc, argv);
  if (GTEST_FLAG_GET(fail_fast)) {  // where a test fails on one rank alone, the others would wait for it in the next
    if (world.rank() == 0) fmt::print(stderr, "--gtest_fail_fast cannot be used on several ranks: leave it out\n");
    return 2;
  }
  struct Failures : testing::EmptyTestEventListener {
    void OnTestPartResult(const testing::TestPartResult& part) override {
      if (part.failed())
        fmt::print(stderr, "[rank {}] {}:{}: {}\n", test_world()->rank(), part.file_name() ? part.file_name() : "?", part.line_number(),
                   part.message());
    }
  };
  if (world.rank() != 0) {
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new Failures);  // the framework deletes it
  }
  const int mine = RUN_ALL_TESTS();
  const auto all = gather_all(world.ranks(), mine);
  return *std::max_element(all.begin(), all.end());
}

}  // namespace collimate
