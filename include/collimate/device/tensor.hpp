#pragma once
#include <span>

#include "collimate/base/dtype.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/shape.hpp"
#include "collimate/device/device.hpp"

namespace collimate {

/// Owns bytes of one device; move-only.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Device& device, std::size_t bytes, Memory memory);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();
  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  Device* device_ = nullptr;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  Memory memory_ = Memory::device;
};

/// A contiguous row-major view of elements in a device's memory: never owns, allocates or resizes. One made without arguments is absent: an
/// optional tensor that is not there. One of an Arena that only counts has a place but no bytes.
class Tensor {
 public:
  Tensor() = default;
  Tensor(void* data, DType dtype, Shape shape, Device& device)
      : data_(data), device_(&device), dtype_(dtype), shape_(shape) {}

  /// The elements; T must be the tensor's type.
  template <class T>
  T* as() const {
    if (dtype_ != dtype_of<T>()) refuse_type(dtype_of<T>());
    return static_cast<T*>(data_);
  }
  void* data() const { return data_; }
  explicit operator bool() const { return device_ != nullptr; }  ///< whether it is there
  Device& device() const { return *device_; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  std::int64_t operator[](int axis) const { return shape_[axis]; }  ///< extent of an axis
  std::int64_t count() const { return shape_.count(); }
  std::size_t bytes() const { return static_cast<std::size_t>(count()) * size_of(dtype_); }
  Tensor slice(std::int64_t begin, std::int64_t count) const {  ///< rows [begin, begin + count) of the first axis
    if (shape_.rank() < 1 || begin < 0 || count < 0 || begin + count > shape_[0]) refuse_rows(begin, count);
    const std::int64_t row = shape_.with_first(1).count();
    return {static_cast<std::byte*>(data_) + static_cast<std::size_t>(begin * row) * size_of(dtype_), dtype_, shape_.with_first(count), *device_};
  }
  Tensor reshape(Shape shape) const;                           ///< the same number of elements
  void zero(Stream& stream) const { stream.zero_bytes(*this); }

 private:
  [[noreturn]] void refuse_type(DType read) const;
  [[noreturn]] void refuse_rows(std::int64_t begin, std::int64_t count) const;

  void* data_ = nullptr;
  Device* device_ = nullptr;
  DType dtype_ = DType::f32;
  Shape shape_;
};

/// Copies all elements, in the stream's order; of equal type and number. Both must stay until the copy has run.
void copy(const Tensor& to, const Tensor& from, Stream& stream);

/// Elements in host memory as a tensor [n] beside those of `device`.
template <class T>
Tensor on_host(std::span<T> elements, Device& device) {
  using Element = std::remove_const_t<T>;
  return {const_cast<Element*>(elements.data()), dtype_of<Element>(), {static_cast<std::int64_t>(elements.size())}, device.host()};
}

}  // namespace collimate
