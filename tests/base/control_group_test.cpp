#include "collimate/base/control_group.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace collimate {
namespace {

namespace fs = std::filesystem;

/// Files below a root, as a kernel would show them.
class FakeKernel {
 public:
  FakeKernel() { fs::create_directories(root); }
  ~FakeKernel() { fs::remove_all(root); }
  void put(const std::string& file, const std::string& text) const {
    fs::create_directories(fs::path(root + file).parent_path());
    std::ofstream(root + file) << text;
  }
  const std::string root = (fs::temp_directory_path() / ("collimate-quota-" + std::to_string(::getpid()))).string();
};

TEST(CpuQuota, Version2) {
  const FakeKernel kernel;
  EXPECT_FALSE(cpu_quota(kernel.root).has_value());
  kernel.put("/proc/self/cgroup", "0::/job/step\n");
  kernel.put("/sys/fs/cgroup/job/step/cpu.max", "max 100000\n");
  EXPECT_FALSE(cpu_quota(kernel.root).has_value());
  kernel.put("/sys/fs/cgroup/job/cpu.max", "150000 100000\n");  // of the group above
  auto quota = cpu_quota(kernel.root);
  ASSERT_TRUE(quota.has_value());
  EXPECT_EQ(quota->cores, 1.5);
  EXPECT_EQ(quota->group, "/job");
  kernel.put("/sys/fs/cgroup/job/step/cpu.max", "50000 50000\n");  // the smaller one counts
  EXPECT_EQ(cpu_quota(kernel.root)->cores, 1);
  EXPECT_EQ(cpu_quota(kernel.root)->group, "/job/step");
  // In a container the group may carry a name that is not seen from inside.
  kernel.put("/proc/self/cgroup", "0::/unseen/name\n");
  kernel.put("/sys/fs/cgroup/cpu.max", "200000 100000\n");
  EXPECT_EQ(cpu_quota(kernel.root)->cores, 2);
  EXPECT_EQ(cpu_quota(kernel.root)->group, "/");
}

TEST(CpuQuota, Version1) {
  const FakeKernel kernel;
  kernel.put("/proc/self/cgroup", "5:cpuset:/a\n4:cpu,cpuacct:/a/b\n0::/other\n");
  kernel.put("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n");
  kernel.put("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n");
  EXPECT_FALSE(cpu_quota(kernel.root).has_value());
  kernel.put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "300000\n");
  kernel.put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cpu_quota(kernel.root)->cores, 3);
  EXPECT_EQ(cpu_quota(kernel.root)->group, "/a");
  kernel.put("/sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us", "100000\n");  // the controller's own name comes first
  kernel.put("/sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cpu_quota(kernel.root)->cores, 1);
}

}  // namespace
}  // namespace collimate
