#include <fcntl.h>
#include <gtest/gtest.h>
#include <omp.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <thread>
#include <vector>

#include "collimate/base/error.hpp"
#include "collimate/base/log.hpp"
#include "collimate/base/peak_memory.hpp"
#include "collimate/base/threads.hpp"
#include "collimate/base/timer.hpp"

namespace collimate {
namespace {

TEST(PeakMemoryTest, CountsAnew) {
  constexpr std::int64_t size = 64 << 20;
  PeakMemory peak;
  {
    std::vector<char> block(size, 1);
    ASSERT_GE(peak.bytes(), size);
  }
  const std::int64_t before = peak.whole_bytes();
  if (!peak.restart()) GTEST_SKIP() << "this system cannot count anew";
  EXPECT_LE(peak.bytes(), before - size / 2);
  EXPECT_EQ(peak.whole_bytes(), before);
}

std::string contents(std::FILE* file) {
  std::rewind(file);
  std::string text(4096, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  return text;
}

struct Closer {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Closer>;

TEST(Log, OnlyRankZeroSpeaks) {
  const File output(std::tmpfile()), errors(std::tmpfile());
  Log first(0, output.get(), errors.get()), second(1, output.get(), errors.get());
  first.info("step {}", 1);
  second.info("silent");
  second.error("silent");
  first.warning("slow");
  first.error("bad");
  EXPECT_EQ(contents(output.get()), "step 1\nwarning: slow\n");
  EXPECT_EQ(contents(errors.get()), "error: bad\n");
}

TEST(Log, CopiesLinesIntoItsFile) {
  const std::string path = testing::TempDir() + "collimate_log_test.txt";
  const File output(std::tmpfile());
  for (const bool append : {false, true}) {
    Log log(0, output.get(), output.get());
    log.open(path, append);
    log.info("line");
  }
  const File file(std::fopen(path.c_str(), "r"));
  EXPECT_EQ(contents(file.get()), "line\nline\n");
  std::remove(path.c_str());
  Log log(0, output.get(), output.get());
  EXPECT_THROW(log.open("/no/such/folder/log.txt"), Error);
  Log(1).open("/no/such/folder/log.txt");  // other ranks write no file
}

TEST(Timer, TimeHasDateClockAndZone) {
  const std::time_t before = std::time(nullptr);
  const std::string text = local_time();
  std::tm parts{};
  const char* end = strptime(text.c_str(), "%Y-%m-%d %H:%M:%S %z", &parts);
  ASSERT_TRUE(end && *end == '\0') << text;
  const long zone = parts.tm_gmtoff;
  EXPECT_NEAR(static_cast<double>(timegm(&parts) - zone - before), 0, 2) << text;
  Stopwatch watch;
  EXPECT_GE(watch.restart(), 0.0);
}

TEST(Threads, Arithmetic) {
  EXPECT_EQ(threads_for(8, 2, 0, nullptr), 4);
  EXPECT_EQ(threads_for(8, 3, 0, nullptr), 2);
  EXPECT_EQ(threads_for(2, 4, 0, nullptr), 1);
  EXPECT_EQ(threads_for(8, 2, 0, "3"), 3);
  EXPECT_EQ(threads_for(8, 2, 0, "3,2"), 3);
  EXPECT_EQ(threads_for(8, 2, 0, ""), 4);
  EXPECT_EQ(threads_for(8, 2, 0, "many"), 4);
  EXPECT_EQ(threads_for(8, 2, 0, "-1"), 4);
  EXPECT_EQ(threads_for(8, 2, 3.9, nullptr), 3);  // a quota's whole cores
  EXPECT_EQ(threads_for(8, 2, 0.5, nullptr), 1);
  EXPECT_EQ(threads_for(8, 2, 6, nullptr), 4);
  EXPECT_EQ(threads_for(8, 2, 1, "3"), 3);
  EXPECT_EQ(core_list({0, 1, 2, 5, 7, 8}), "0-2,5,7-8");
  EXPECT_EQ(core_list({}), "");
}

TEST(Threads, MaskAndSetter) {
  cpu_set_t set;
  ASSERT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  const std::vector<int> cores = bound_cores();
  EXPECT_EQ(static_cast<int>(cores.size()), CPU_COUNT(&set));
  for (const int core : cores) EXPECT_TRUE(CPU_ISSET(core, &set));
  const int before = omp_get_max_threads();
  EXPECT_EQ(set_threads(1, 0), omp_get_max_threads());
  omp_set_num_threads(before);
}

TEST(StandardStreams, ClosedOnesAreOpened) {
  for (const std::vector<int>& closed : std::vector<std::vector<int>>{{}, {0}, {1}, {2}, {1, 2}, {0, 1, 2}}) {
    const pid_t child = fork();
    if (child == 0) {
      for (const int fd : closed) close(fd);
      open_standard_streams();
      const int file = open("/dev/null", O_RDONLY);  // the next file of the program
      bool fine = file > 2;
      for (const int fd : closed) fine = fine && fcntl(fd, F_GETFD) == 0 && (fd == 0 ? read(fd, &fine, 1) == 0 : write(fd, "x", 1) == 1);
      _exit(fine ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0) << testing::PrintToString(closed);
  }
}

}  // namespace
}  // namespace collimate
