#pragma once
#include <algorithm>
#include <memory>
#include <string>

#include "collimate/comm/communicator.hpp"
#include "collimate/device/memory_plan.hpp"

namespace collimate {

class ParameterStore;

/// What a window holds: the values of one unit at a time, which do not rest on the device whole.
struct Window {
  int unit = -1;    ///< what it holds, or is about to; -1: nothing
  int leases = 0;   ///< that are open
  std::int64_t step = 0;  ///< of the optimizer, to which its values belong
  std::unique_ptr<Transfer> transfer;  ///< from other ranks, that brings it
  Event arrived;                       ///< the copy from the host that does
};

/// Room on the device for units on their way: windows for values, and gradients of a unit. Stores that are never in use together share it:
/// the one that needs it next claims it, and what the last one had there is forgotten.
class Windows {
 public:
  static constexpr int count = 2;  ///< one is used while the next one comes
  /// name: of the plan's entries.
  Windows(MemoryPlan& plan, std::string name) : plan_(&plan), name_(std::move(name)) {}
  void need_values(std::size_t bytes) { values_ = std::max(values_, static_cast<std::int64_t>(bytes)); }  ///< of a store's largest unit; before reserve
  void need_gradients(std::int64_t buffers, std::int64_t elements) {
    gradients_ = std::max(gradients_, buffers);
    gradient_ = std::max(gradient_, elements);
  }
  void reserve();  ///< nothing where nobody needs it
  void claim(ParameterStore& store);
  Tensor values(int window, std::int64_t elements, DType dtype) const;
  Tensor gradient(int buffer, std::int64_t begin, std::int64_t elements) const;

 private:
  MemoryPlan* plan_;
  std::string name_;
  std::int64_t values_ = 0, gradients_ = 0, gradient_ = 0;  // bytes of a window; buffers, and elements of each
  Slot values_slot_, gradient_slot_;
  ParameterStore* owner_ = nullptr;
};

}  // namespace collimate
