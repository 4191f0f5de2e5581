#pragma once
#include <memory>
#include <utility>
#include <vector>

#include "collimate/device/tensor.hpp"

namespace collimate::test {

/// A tensor that owns its elements.
template <class T>
struct Owned {
  explicit Owned(std::vector<T> values) : values(std::move(values)), device(make_cpu_device()) {}
  explicit Owned(std::int64_t n) : Owned(std::vector<T>(static_cast<std::size_t>(n))) {}
  Tensor tensor() { return {values.data(), dtype_of<T>(), {static_cast<std::int64_t>(values.size())}, *device}; }
  Stream& stream() { return device->stream(); }
  std::vector<T> values;
  std::unique_ptr<Device> device;
};

}  // namespace collimate::test
