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

void Tensor::refuse_type(DType read) const {
  fail_with(ExitCode::failure, "a {} tensor was read as {}", name_of(dtype_), name_of(read));
}

void Tensor::refuse_rows(std::int64_t begin, std::int64_t count) const {
  fail_with(ExitCode::failure, "rows [{}, {}) are not in a tensor of shape {}", begin, begin + count, shape_.text());
}

Tensor Tensor::reshape(Shape shape) const {
  if (shape.count() != count())
    fail_with(ExitCode::failure, "shape {} does not hold the elements of shape {}", shape.text(), shape_.text());
  return {data_, dtype_, shape, *device_};
}

void copy(const Tensor& to, const Tensor& from, Stream& stream) {
  if (to.count() != from.count() || to.dtype() != from.dtype())
    fail_with(ExitCode::failure, "a copy of {} {} into {} {}", name_of(from.dtype()), from.shape().text(), name_of(to.dtype()), to.shape().text());
  stream.copy_bytes(to, from);
}

}  // namespace collimate
