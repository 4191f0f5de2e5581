#include "collimate/device/tensor.hpp"

#include <utility>

namespace collimate {

Buffer::Buffer(Device& device, std::size_t bytes, Memory memory)
    : device_(&device), data_(bytes ? device.allocate(bytes, memory) : nullptr), bytes_(bytes), memory_(memory) {}

Buffer::Buffer(Buffer&& other) noexcept { *this = std::move(other); }

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(memory_, other.memory_);
  return *this;
}

Buffer::~Buffer() {
  if (data_) device_->release(data_, bytes_, memory_);
}

Tensor Tensor::slice(std::int64_t begin, std::int64_t count) const {
  if (shape_.rank() < 1 || begin < 0 || count < 0 || begin + count > shape_[0])  // the shape is written only where it is wrong
    fail_with(ExitCode::failure, "rows [{}, {}) are not in a tensor of shape {}", begin, begin + count, shape_.text());
  const std::int64_t row = shape_[0] ? shape_.count() / shape_[0] : 0;
  Shape shape = shape_;
  switch (shape_.rank()) {
    case 1: shape = {count}; break;
    case 2: shape = {count, shape_[1]}; break;
    case 3: shape = {count, shape_[1], shape_[2]}; break;
    default: shape = {count, shape_[1], shape_[2], shape_[3]};
  }
  return {static_cast<std::byte*>(data_) + static_cast<std::size_t>(begin * row) * size_of(dtype_), dtype_, shape, *device_};
}

Tensor Tensor::reshape(Shape shape) const {
  if (shape.count() != count())
    fail_with(ExitCode::failure, "shape {} does not hold the elements of shape {}", shape.text(), shape_.text());
  return {data_, dtype_, shape, *device_};
}

}  // namespace collimate
