#pragma once
#include <memory>

#include "collimate/device/device.hpp"

namespace collimate {

/// What some work costs, by formulas of the shapes alone.
struct Cost {
  double flops = 0;               ///< additions and multiplications; a fused one counts as two
  double read = 0, written = 0;   ///< bytes of the operands of kernels, each operand once
  double fetched = 0, spilled = 0;  ///< bytes copied to the device and away from it
  std::int64_t kernels = 0;
  Cost operator-(const Cost& before) const {
    return {flops - before.flops, read - before.read, written - before.written, fetched - before.fetched, spilled - before.spilled,
            kernels - before.kernels};
  }
};

/// A device that plans: its memory has places but no bytes, whatever the size, nothing is computed, and all that it is asked for is added to a
/// meter. What is copied from it is zeros.
class DryDevice : public Device {
 public:
  virtual Cost& meter() = 0;
};
std::unique_ptr<DryDevice> make_dry_device();

}  // namespace collimate
