#pragma once
#include <cstring>
#include <string_view>
#include <vector>

#include "collimate/device/tensor.hpp"

namespace collimate::test {

/// The elements of a tensor of any device.
template <class T = float>
std::vector<T> numbers_of(const Tensor& tensor) {
  Device& device = tensor.device();
  const Buffer outside(device, tensor.bytes(), Memory::pinned);
  copy(Tensor(outside.data(), tensor.dtype(), tensor.shape(), device.host()), tensor, device.stream());
  device.stream().wait();
  std::vector<T> out(tensor.count());
  if (tensor.bytes()) std::memcpy(out.data(), outside.data(), tensor.bytes());
  return out;
}

/// Makes them these.
template <class T>
void set_numbers(const Tensor& tensor, const std::vector<T>& numbers) {
  Device& device = tensor.device();
  const Buffer outside(device, tensor.bytes(), Memory::pinned);
  if (tensor.bytes()) std::memcpy(outside.data(), numbers.data(), tensor.bytes());
  copy(tensor, Tensor(outside.data(), tensor.dtype(), tensor.shape(), device.host()), device.stream());
  device.stream().wait();
}

/// The same of several tensors, one behind the other.
inline std::vector<float> numbers_of(const std::vector<Tensor>& tensors) {
  std::vector<float> out;
  for (const Tensor& tensor : tensors) {
    const std::vector<float> numbers = numbers_of(tensor);
    out.insert(out.end(), numbers.begin(), numbers.end());
  }
  return out;
}
inline void set_numbers(const std::vector<Tensor>& tensors, const std::vector<float>& numbers) {
  for (auto from = numbers.begin(); const Tensor& tensor : tensors) {
    set_numbers(tensor, std::vector<float>(from, from + tensor.count()));
    from += tensor.count();
  }
}

/// A hash of the elements' bits and their order.
template <class Tensors>
std::size_t bits_hash(const Tensors& tensors) {
  const std::vector<float> numbers = numbers_of(tensors);
  return std::hash<std::string_view>()({reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(float)});
}

}  // namespace collimate::test
