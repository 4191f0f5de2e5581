#pragma once
#include <span>

#include "collimate/device/tensor.hpp"

namespace collimate::kernels {

/// An array of indices (offsets, positions, slots, lengths) in both memories: checks read `host`, kernels read `device`. So nobody waits for a
/// device to know whether an index is right.
struct Ragged {
  std::span<const std::int32_t> host;
  Tensor device;  ///< [n] i32, the same numbers
  std::int64_t count() const { return std::ssize(host); }
  Ragged slice(std::int64_t begin, std::int64_t count) const {
    return {host.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count)), device.slice(begin, count)};
  }
};

}  // namespace collimate::kernels
