#pragma once
#include <span>
#include <string>
#include <vector>

#include "collimate/device/memory_plan.hpp"

namespace collimate {

/// Where what a rank holds of one kind of a model's numbers rests, unit by unit, in one type: on the device, or on the host.
class Residence {
 public:
  /// counts: elements of each unit that rest here; on_host: which units rest on the host.
  void reserve(MemoryPlan& plan, const std::string& name, std::vector<std::int64_t> counts, std::vector<bool> on_host,
               DType dtype = DType::f32);
  bool on_host(int unit) const { return on_host_[unit]; }
  bool has(int unit) const { return counts_[unit] > 0; }
  std::int64_t count(int unit) const { return counts_[unit]; }  ///< elements that rest here
  Tensor at(int unit) const;             ///< what rests here of a unit, [count]
  std::vector<Tensor> ranges() const;  ///< everything: what is on the device, what is on the host

 private:
  MemoryPlan* plan_ = nullptr;
  DType dtype_ = DType::f32;
  std::vector<bool> on_host_;
  std::vector<std::int64_t> counts_, offsets_;  // in the range of the unit's tier
  std::int64_t elements_[2] = {0, 0};           // on the device, on the host
  Slot slots_[2];
};

}  // namespace collimate
