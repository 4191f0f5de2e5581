#include "collimate/device/memory_plan.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "collimate/base/timer.hpp"
#include "device/cpu/host_memory.hpp"

namespace collimate {
namespace {

namespace fs = std::filesystem;

TEST(MemoryPlan, PhasesOverlayAndMeasuredEqualsPlanned) {
  auto device = make_cpu_device();
  MemoryPlan plan(*device);
  const Slot weights = plan.reserve("weights", Shape{10, 10}, DType::f32);
  const Slot cache = plan.reserve("cache", 1000, Lifetime::rollout);
  const Slot saved = plan.reserve("saved", 5000, Lifetime::update);
  const Slot more = plan.reserve("more", 64, Lifetime::update);
  const std::size_t expected = 448 + 5056 + 64;
  EXPECT_EQ(plan.planned_bytes(Memory::device), expected);
  plan.commit();
  EXPECT_EQ(plan.allocated_bytes(), expected);
  plan.enter(Lifetime::rollout);
  const void* const place = plan.at(cache, {250}).data();
  EXPECT_EQ(static_cast<std::byte*>(plan.at(cache, {16}).data()) - static_cast<std::byte*>(plan.at(weights, {16}).data()), 448);
  EXPECT_THROW(plan.at(saved, {250}), Error) << "of another phase";
  plan.enter(Lifetime::update);
  EXPECT_EQ(place, plan.at(saved, {250}).data());
  EXPECT_EQ(static_cast<std::byte*>(plan.at(more, {16}).data()) - static_cast<std::byte*>(plan.at(saved, {16}).data()), 5056);
  EXPECT_THROW(plan.at(weights, {200}), Error);
  EXPECT_THROW(plan.reserve("late", 1), Error);
}

// What a slot's place needs is known without a look at all others.
TEST(MemoryPlan, ManyReservationsCostNoMoreThanFew) {
  auto device = make_cpu_device();
  MemoryPlan plan(*device);
  const std::size_t before = plan.planned_bytes(Memory::device);
  const Stopwatch clock;
  std::size_t planned = before;
  for (int i = 0; i < 40000; ++i) {
    plan.reserve("", 64, i % 2 ? Lifetime::update : Lifetime::rollout);
    planned = plan.planned_bytes(Memory::device);
  }
  EXPECT_EQ(planned - before, 20000u * 64);
  EXPECT_LT(clock.seconds(), 1.0);  // some milliseconds
}

TEST(MemoryPlan, RefusesWhatDoesNotFitAndSaysWhatIsLarge) {
  auto device = make_cpu_device();
  MemoryPlan plan(*device);
  plan.reserve("small", 100);
  plan.reserve("huge", 100 << 20);
  try {
    plan.commit({.device = 50 << 20});
    FAIL() << "a plan above the limit was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::does_not_fit);
    EXPECT_NE(std::string(error.what()).find("huge (100.0 MiB)"), std::string::npos) << error.what();
  }
  plan.reserve("outside", 9 << 20, Lifetime::always, Memory::host);
  plan.reserve("pinned", 3 << 20, Lifetime::always, Memory::pinned);
  EXPECT_EQ(plan.host_bytes(), plan.planned_bytes(Memory::device) + (12 << 20));
  plan.check_caps({.device = 101 << 20, .host = 12 << 20});
  try {
    plan.check_caps({.host = (12 << 20) - 1});
    FAIL() << "more host memory than the limit was accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("12.0 MiB in host memory and memory.host allows"), std::string::npos) << error.what();
    EXPECT_EQ(std::string(error.what()).find("huge"), std::string::npos) << error.what();
  }
}

TEST(MemoryPlan, RefusesMoreThanTheMachineHas) {
  auto device = make_cpu_device();
  MemoryPlan plan(*device);
  plan.reserve("huge", std::size_t{1} << 50);
  try {
    plan.check_caps({});
    FAIL() << "a petabyte was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::does_not_fit);
    EXPECT_NE(std::string(error.what()).find("the machine has"), std::string::npos) << error.what();
  }
}

/// Files below a root, as a kernel would show them.
class FakeKernel {
 public:
  FakeKernel() { fs::create_directories(root); }
  ~FakeKernel() { fs::remove_all(root); }
  void put(const std::string& file, const std::string& text) const {
    fs::create_directories(fs::path(root + file).parent_path());
    std::ofstream(root + file) << text;
  }
  std::vector<std::pair<std::string, std::size_t>> limits() const {  // without the node's
    std::vector<std::pair<std::string, std::size_t>> out;
    const auto all = host_memory_limits(root);
    EXPECT_EQ(all.at(0).name, "the node");
    EXPECT_GT(all[0].bytes, std::size_t{1} << 20);
    for (std::size_t i = 1; i < all.size(); ++i) out.emplace_back(all[i].name, all[i].bytes);
    return out;
  }
  const std::string root = (fs::temp_directory_path() / ("collimate-kernel-" + std::to_string(::getpid()))).string();
};

TEST(HostMemory, LimitsOfControlGroupsAreFound) {
  using Limits = std::vector<std::pair<std::string, std::size_t>>;
  const FakeKernel kernel;
  EXPECT_EQ(kernel.limits(), Limits{});
  // Version 2: of the process's own group and those above it.
  kernel.put("/proc/self/cgroup", "0::/job/step/task\n");
  kernel.put("/sys/fs/cgroup/job/step/task/memory.max", "max\n");
  kernel.put("/sys/fs/cgroup/job/step/memory.max", "1048576\n");
  kernel.put("/sys/fs/cgroup/job/memory.max", "2097152\n");
  EXPECT_EQ(kernel.limits(), (Limits{{"the control group /job/step", 1048576}, {"the control group /job", 2097152}}));
  // In a container the group is the root, and may carry a name that is not seen from inside.
  kernel.put("/sys/fs/cgroup/memory.max", "4096\n");
  for (const char* group : {"0::/\n", "0::/unseen/name\n"}) {
    kernel.put("/proc/self/cgroup", group);
    EXPECT_EQ(kernel.limits(), (Limits{{"the control group /", 4096}}));
  }
  // Version 1: the controller's own tree; what it says without a limit is none.
  kernel.put("/proc/self/cgroup", "3:cpuset:/a\n4:cpu,memory:/a/b\n");
  kernel.put("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "8192\n");
  kernel.put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(kernel.limits(), (Limits{{"the control group /a/b", 8192}}));
}

TEST(HostMemory, OfASlurmJob) {
  const auto limits = [](std::map<std::string, const char*> job) {
    return host_memory_limits("/nowhere", [&](const char* name) { return job.contains(name) ? job[name] : nullptr; });
  };
  EXPECT_EQ(limits({}).size(), 1u);
  EXPECT_EQ(limits({{"SLURM_MEM_PER_NODE", "0"}, {"SLURM_CPUS_ON_NODE", "4"}}).size(), 1u) << "--mem=0 grants all of the node";
  ASSERT_EQ(limits({{"SLURM_MEM_PER_NODE", "2000"}, {"SLURM_CPUS_ON_NODE", "4"}}).size(), 2u);
  EXPECT_EQ(limits({{"SLURM_MEM_PER_NODE", "2000"}, {"SLURM_CPUS_ON_NODE", "4"}})[1].bytes, 2000u << 20);
  ASSERT_EQ(limits({{"SLURM_MEM_PER_CPU", "500"}, {"SLURM_CPUS_ON_NODE", "4"}}).size(), 2u);
  EXPECT_EQ(limits({{"SLURM_MEM_PER_CPU", "500"}, {"SLURM_CPUS_ON_NODE", "4"}})[1].bytes, 2000u << 20);
}

TEST(Tensor, SliceAndReshapeAreViews) {
  auto device = make_cpu_device();
  Buffer buffer(*device, 24 * 4, Memory::device);
  const Tensor whole(buffer.data(), DType::f32, {4, 6}, *device);
  const Tensor rows = whole.slice(1, 2);
  EXPECT_EQ(rows.as<float>(), whole.as<float>() + 6);
  EXPECT_EQ(rows.shape(), (Shape{2, 6}));
  EXPECT_EQ(whole.reshape({2, 3, 4}).count(), 24);
  EXPECT_THROW(whole.reshape({5, 5}), Error);
  EXPECT_THROW(whole.slice(3, 2), Error);
  EXPECT_THROW(whole.as<double>(), Error);
}

}  // namespace
}  // namespace collimate
