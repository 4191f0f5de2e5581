#include "kernels/cpu/parallel.hpp"

#include <omp.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "collimate/kernels/rows.hpp"
#include "kernels/support.hpp"

namespace collimate::kernels {
namespace {

struct Threads {
  int before = omp_get_max_threads();
  explicit Threads(int n) { omp_set_num_threads(n); }
  ~Threads() { omp_set_num_threads(before); }
};

TEST(Tiles, EachIsDoneOnceForAnyNumberOfThreads) {
  for (const int threads : {1, 2, 3, 5}) {
    const Threads set(threads);
    for (const std::int64_t tiles : {0, 1, 2, 3, 17, 1000})
      for (int repeat = 0; repeat < 200; ++repeat) {
        std::vector<std::atomic<int>> done(tiles);
        cpu::parallel_tiles(tiles, true, [&](std::int64_t tile) { ++done[tile]; });
        for (const auto& count : done) ASSERT_EQ(count, 1) << tiles << " tiles, " << threads << " threads";
      }
  }
}

TEST(Tiles, WaitingThreadsThatFellAsleepWakeUp) {
  const Threads set(3);
  for (int repeat = 0; repeat < 5; ++repeat) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    std::atomic<int> done = 0;
    cpu::parallel_tiles(50, true, [&](std::int64_t) { ++done; });
    EXPECT_EQ(done, 50);
  }
}

TEST(Tiles, ALoopInALoopAndTwoCallersAtOnceEnd) {
  const Threads set(2);
  std::atomic<int> done = 0;
  const auto nested = [&] {
    for (int repeat = 0; repeat < 100; ++repeat)
      cpu::parallel_tiles(4, true, [&](std::int64_t) { cpu::parallel_tiles(5, true, [&](std::int64_t) { ++done; }); });
  };
  std::thread other(nested);
  nested();
  other.join();
  EXPECT_EQ(done, 2 * 100 * 20);
}

TEST(Parts, CoverTheRowsAndPassErrorsOn) {
  for (const int threads : {1, 2, 3}) {
    const Threads set(threads);
    for (const std::int64_t rows : {1, 2, 7}) {
      std::vector<std::atomic<int>> done(rows);
      in_parts(rows, [&](std::int64_t begin, std::int64_t count) {
        for (std::int64_t r = begin; r < begin + count; ++r) ++done[r];
      });
      for (const auto& count : done) EXPECT_EQ(count, 1);
    }
    EXPECT_THROW(in_parts(7, [](std::int64_t, std::int64_t) { throw std::runtime_error("a part failed"); }), std::runtime_error);
  }
}

}  // namespace
}  // namespace collimate::kernels
