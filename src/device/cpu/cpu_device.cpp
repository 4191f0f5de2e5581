#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "collimate/base/error.hpp"
#include "collimate/device/tensor.hpp"
#include "device/cpu/host_memory.hpp"

namespace collimate {
namespace {

class CpuStream final : public Stream {
 public:
  explicit CpuStream(Device& device) : device_(&device) {}
  Device& device() const override { return *device_; }
  void wait() override {}
  Event record() override { return {this, 0}; }
  void wait(const Event&) override {}
  void finish(const Event&) override {}
  void queue(std::function<void()> work) override { work(); }
  void copy_bytes(const Tensor& to, const Tensor& from) override {
    if (to.bytes()) std::memcpy(to.data(), from.data(), to.bytes());
  }
  void zero_bytes(const Tensor& tensor) override {
    if (tensor.bytes()) std::memset(tensor.data(), 0, tensor.bytes());
  }

 private:
  Device* device_;
};

class CpuDevice final : public Device {
 public:
  std::string name() const override { return "cpu"; }
  BackEnd back_end() const override { return BackEnd::cpu; }

  std::vector<MemoryLimit> limits(Memory) const override { return host_memory_limits(); }

  void* allocate(std::size_t bytes, Memory) override {
    constexpr std::size_t small_page = 4096, large_page = 2 << 20;
    const std::size_t page = bytes < large_page ? small_page : large_page;
    void* pointer = std::aligned_alloc(page, (bytes + small_page - 1) / small_page * small_page);
    if (!pointer)
      fail_with(ExitCode::does_not_fit,
                "the host cannot allocate {:.1f} MiB: lower the model size, batch.grain_tokens or the ranks per node",
                static_cast<double>(bytes) / 1048576.0);
    // Large pages where the system has them for the asking: weights then stream from memory up to half as fast again.
    if (page == large_page) madvise(pointer, bytes / large_page * large_page, MADV_HUGEPAGE);
    std::memset(pointer, 0, bytes);
    return pointer;
  }
  void release(void* pointer, std::size_t, Memory) noexcept override { std::free(pointer); }
  Stream& stream(Lane) override { return stream_; }
  Device& host() override { return *this; }

 private:
  CpuStream stream_{*this};
};

}  // namespace

std::unique_ptr<Device> make_cpu_device() { return std::make_unique<CpuDevice>(); }

}  // namespace collimate
