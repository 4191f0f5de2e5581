#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "collimate/rlhf/stages.hpp"
#include "rlhf/mpi/bench.hpp"

// The ranks of a node share its memory: what they plan is added up under every limit that holds for them together.
namespace collimate::rlhf {
namespace {

using testing::HasSubstr;

/// The CPU of a machine that has less memory.
class TightDevice final : public Device {
 public:
  std::vector<MemoryLimit> bounds;
  std::string name() const override { return "tight"; }
  std::vector<MemoryLimit> limits(Memory) const override { return bounds; }
  void* allocate(std::size_t bytes, Memory memory) override { return cpu_->allocate(bytes, memory); }
  void release(void* pointer, std::size_t bytes, Memory memory) noexcept override { cpu_->release(pointer, bytes, memory); }
  BackEnd back_end() const override { return BackEnd::cpu; }
  Stream& stream(Lane lane) override { return cpu_->stream(lane); }
  Device& host() override { return *this; }

 private:
  std::unique_ptr<Device> cpu_ = make_cpu_device();
};

TEST(Memory, RanksOfANodeShareIt) {
  Bench bench("memory");
  bench.options.run.stages = {"sft"};
  auto owned = std::make_unique<TightDevice>();
  TightDevice& device = *owned;
  bench.device = std::move(owned);
  Session session = bench.session();
  const auto ranks = static_cast<std::size_t>(bench.world.size());
  SupervisedTrainer trainer(session);
  trainer.plan();
  const std::size_t each = trainer.memory().host_bytes();
  const auto outcome = [&](std::vector<MemoryLimit> bounds) -> std::string {
    device.bounds = std::move(bounds);
    try {
      StagePlans(session).plan();
    } catch (const AgreedError& error) {
      EXPECT_EQ(error.code(), ExitCode::does_not_fit);
      return error.what();
    }
    return "fits";
  };
  EXPECT_EQ(outcome({}), "fits");
  EXPECT_EQ(outcome({{"the node", each * ranks}}), "fits");
  EXPECT_THAT(outcome({{"the node", each * ranks}, {"the group /job", each * ranks - 1}}),
              HasSubstr(ranks == 1 ? "the machine has" : fmt::format("sft: {} ranks on node 0 need ", ranks)));
  if (ranks > 1) {
    EXPECT_THAT(outcome({{"the group /job", each * ranks - 1}}), HasSubstr("MiB in all, and the group /job has "));
  }
  // Each rank in a group of its own.
  EXPECT_EQ(outcome({{"the node", each * ranks}, {fmt::format("the group /task {}", bench.world.rank()), each}}), "fits");
}

}  // namespace
}  // namespace collimate::rlhf
