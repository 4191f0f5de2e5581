#include "collimate/device/dry_device.hpp"

#include <algorithm>
#include <cstring>

#include "collimate/device/tensor.hpp"

namespace collimate {
namespace {

class DryMemory;

class DryStream final : public Stream {
 public:
  explicit DryStream(DryMemory& owner) : owner_(&owner) {}
  Device& device() const override;
  void wait() override {}
  Event record() override { return {this, 0}; }
  void wait(const Event&) override {}
  void finish(const Event&) override {}
  void queue(std::function<void()>) override {}
  void copy_bytes(const Tensor& to, const Tensor& from) override;
  void zero_bytes(const Tensor& tensor) override;

 private:
  DryMemory* owner_;
};

class DryMemory final : public DryDevice {
 public:
  std::string name() const override { return "dry device"; }
  BackEnd back_end() const override { return BackEnd::dry; }
  void* allocate(std::size_t bytes, Memory memory) override {
    if (memory != Memory::device) return host_->allocate(bytes, memory);
    std::byte* const place = next_;
    next_ += (bytes + page - 1) / page * page;
    return place;
  }
  void release(void* pointer, std::size_t bytes, Memory memory) noexcept override {
    if (memory != Memory::device) host_->release(pointer, bytes, memory);
  }
  Stream& stream(Lane) override { return stream_; }
  Device& host() override { return *host_; }
  Cost& meter() override { return meter_; }

 private:
  static constexpr std::size_t page = 4096;
  std::unique_ptr<Device> host_ = make_cpu_device();
  DryStream stream_{*this};
  std::byte* next_ = reinterpret_cast<std::byte*>(page);  // nobody's, and not null
  Cost meter_;
};

Device& DryStream::device() const { return *owner_; }

void DryStream::copy_bytes(const Tensor& to, const Tensor& from) {
  const bool into = &to.device() == owner_, out = &from.device() == owner_;
  const auto bytes = static_cast<double>(to.bytes());
  if (into && out) {
    owner_->meter().read += bytes;
    owner_->meter().written += bytes;
  } else if (into) {
    owner_->meter().fetched += bytes;
  } else {
    owner_->meter().spilled += bytes;
    if (to.bytes()) std::memset(to.data(), 0, to.bytes());
  }
}

void DryStream::zero_bytes(const Tensor& tensor) { owner_->meter().written += static_cast<double>(tensor.bytes()); }

}  // namespace

std::unique_ptr<DryDevice> make_dry_device() { return std::make_unique<DryMemory>(); }

}  // namespace collimate
