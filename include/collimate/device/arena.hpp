#pragma once
#include "collimate/device/tensor.hpp"

namespace collimate {

/// Hands out consecutive tensors of one reserved range. Made without a range it only counts, and its tensors have places but no bytes: so the
/// code that lays out memory is the code that measures it, and the plan is exact. Every tensor is aligned to 64 bytes.
class Arena {
 public:
  explicit Arena(Device& device) : device_(&device) {}  ///< counts only
  explicit Arena(Tensor range) : device_(&range.device()), base_(static_cast<std::byte*>(range.data())), size_(range.bytes()) {}

  Tensor take(Shape shape, DType dtype = DType::f32) {
    std::byte* data = base_ ? base_ + used_ : nullptr;
    used_ += (static_cast<std::size_t>(shape.count()) * size_of(dtype) + 63) / 64 * 64;
    ensure(!base_ || used_ <= size_, "an arena of {} bytes was asked for {}", size_, used_);
    return {data, dtype, shape, *device_};
  }
  std::size_t used() const { return used_; }
  bool counts() const { return base_ == nullptr; }  ///< only: a layout is measured, not made

 private:
  Device* device_;
  std::byte* base_ = nullptr;
  std::size_t size_ = 0, used_ = 0;
};

}  // namespace collimate
