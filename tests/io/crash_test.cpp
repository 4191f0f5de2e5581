// A crash at the n-th change of the file system, for every n of an action: there is a complete checkpoint before and after each of them.
// The functions by which files are renamed, removed and synced are replaced here: they count, and the n-th one ends the process instead.
#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "collimate/base/atomic_file.hpp"
#include "collimate/io/checkpoint.hpp"
#include "io/scratch.hpp"

namespace {

constexpr int crashed = 9;
bool watching = false;
int calls_left = -1;  ///< until the crash; -1: none
std::vector<std::string>* seen = nullptr;

void count(const std::string& what) {
  if (!watching) return;
  if (seen) seen->push_back(what);
  if (calls_left >= 0 && calls_left-- == 0) _exit(crashed);
}

template <class Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

std::string path_of(int fd) {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), error).string();
}

}  // namespace

extern "C" {
int rename(const char* from, const char* to) noexcept {
  count(std::string("rename ") + from + " " + to);
  return real<int(const char*, const char*)>("rename")(from, to);
}
int remove(const char* path) noexcept {
  count(std::string("remove ") + path);
  return real<int(const char*)>("remove")(path);
}
int unlink(const char* path) noexcept {
  count(std::string("remove ") + path);
  return real<int(const char*)>("unlink")(path);
}
int unlinkat(int folder, const char* path, int flags) noexcept {
  count(std::string("remove ") + path);
  return real<int(int, const char*, int)>("unlinkat")(folder, path, flags);
}
int fsync(int fd) {
  count("fsync " + path_of(fd));
  return real<int(int)>("fsync")(fd);
}
}

namespace collimate {
namespace {

namespace fs = std::filesystem;
using test::refusal;
using test::Scratch;

void write_checkpoint(const std::string& folder, double value) {
  std::vector<std::unique_ptr<CheckpointWriter>> writers;
  for (int rank = 0; rank < 2; ++rank) writers.push_back(std::make_unique<CheckpointWriter>(folder, rank, 2));
  for (int rank = 0; rank < 2; ++rank) {
    const std::vector<double> values(3, value);
    writers[static_cast<std::size_t>(rank)]->write("x", {6}, 3 * rank, std::span<const double>(values));
    writers[static_cast<std::size_t>(rank)]->close_part();
  }
  writers[0]->publish("{}");
}

/// The value in a checkpoint that is complete and undamaged.
double value_of(const std::string& folder) {
  const CheckpointReader reader(folder);
  reader.verify();
  double value = 0;
  reader.read("x", 5, 1, &value);
  return value;
}

/// Runs an action again and again, each time in a new folder and with a crash one call later; `check` looks at each folder. Returns how many
/// calls there were.
template <class Before, class Action, class Check>
int crash_everywhere(const Before& before, const Action& action, const Check& check) {
  for (int n = 0; n < 500; ++n) {
    const Scratch scratch;
    before(scratch);
    const pid_t child = fork();
    if (child == 0) {
      calls_left = n;
      watching = true;
      action(scratch);
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    check(scratch, n);
    if (status == 0) return n;
    EXPECT_EQ(WEXITSTATUS(status), crashed) << "call " << n;
    action(scratch);  // the next run cleans up and goes on
    check(scratch, n);
  }
  return 500;
}

TEST(Crash, WhileACheckpointTakesThePlaceOfAnother) {
  const int calls = crash_everywhere([](const Scratch& scratch) { write_checkpoint(scratch / "sft", 1); },
                                     [](const Scratch& scratch) { write_checkpoint(scratch / "sft", 2); },
                                     [](const Scratch& scratch, int n) {
                                       const std::string latest = latest_checkpoint(scratch / ".");
                                       ASSERT_NE(latest, "") << "call " << n;
                                       const double value = value_of(latest);
                                       EXPECT_TRUE(value == 1 || value == 2) << "call " << n;
                                     });
  EXPECT_GE(calls, 10);
}

TEST(Crash, WhileOldCheckpointsGo) {
  const int calls = crash_everywhere(
      [](const Scratch& scratch) {
        for (int i = 1; i <= 3; ++i) write_checkpoint(scratch / ("sft-" + std::to_string(i)), i);
      },
      [](const Scratch& scratch) {
        write_checkpoint(scratch / "sft-4", 4);
        remove_old_checkpoints(scratch / ".", 2, "sft-", [](std::int64_t step) { return step == 1; });
      },
      [](const Scratch& scratch, int n) {
        const std::string latest = latest_checkpoint(scratch / ".", "sft-");
        ASSERT_TRUE(latest.ends_with("sft-3") || latest.ends_with("sft-4")) << "call " << n << ": " << latest;
        value_of(latest);
        EXPECT_EQ(value_of(scratch / "sft-1"), 1) << "call " << n;
        EXPECT_EQ(value_of(scratch / "sft-3"), 3) << "call " << n;
        // What still has its manifest is whole: it may be opened by its name.
        if (fs::exists(scratch / "sft-2/manifest.json")) {
          EXPECT_EQ(value_of(scratch / "sft-2"), 2) << "call " << n;
        }
      });
  EXPECT_GE(calls, 15);
}

TEST(Crash, WhileACheckpointGetsAnotherName) {
  const int calls = crash_everywhere(
      [](const Scratch& scratch) {
        write_checkpoint(scratch / "sft-4", 1);
        write_checkpoint(scratch / "sft", 2);
      },
      [](const Scratch& scratch) {
        if (fs::exists(scratch / "sft")) rename_checkpoint(scratch / "sft", scratch / "sft-4");
      },
      [](const Scratch& scratch, int n) { EXPECT_EQ(value_of(latest_checkpoint(scratch / ".")), 2) << "call " << n; });
  EXPECT_GE(calls, 4);
}

TEST(Crash, WhatGetsItsNameIsOnTheDisk) {
  const Scratch scratch;
  std::vector<std::string> log;
  seen = &log;
  watching = true;
  write_checkpoint(scratch / "sft", 1);
  write_checkpoint(scratch / "sft", 2);
  write_file(scratch / "summary.json", "{}");
  watching = false;
  seen = nullptr;
  const auto synced = [&](const std::string& path, std::size_t before) {
    return std::find(log.begin(), log.begin() + static_cast<std::ptrdiff_t>(before), "fsync " + path) != log.begin() + static_cast<std::ptrdiff_t>(before);
  };
  int files = 0, folders = 0;
  for (std::size_t i = 0; i < log.size(); ++i) {
    if (!log[i].starts_with("rename ")) continue;
    const std::string from = log[i].substr(7, log[i].find(' ', 7) - 7), to = log[i].substr(log[i].find(' ', 7) + 1);
    if (to.ends_with(".replaced")) continue;  // was on the disk before
    EXPECT_TRUE(synced(from, i)) << from << " is not synced before it becomes " << to;
    const std::string parent = fs::path(to).parent_path().string();
    EXPECT_NE(std::find(log.begin() + static_cast<std::ptrdiff_t>(i), log.end(), "fsync " + parent), log.end()) << "the name " << to << " may be lost";
    if (!from.ends_with(".partial")) {
      ++files;
      continue;
    }
    ++folders;
    for (const char* part : {"part-00000.h5", "part-00001.h5"}) EXPECT_TRUE(synced(from + "/" + part, i)) << part << " is not synced before " << to;
  }
  EXPECT_EQ(folders, 2);
  EXPECT_GE(files, 2 * 3 + 1);  // two tables and a manifest each, and the summary
}

}  // namespace
}  // namespace collimate
