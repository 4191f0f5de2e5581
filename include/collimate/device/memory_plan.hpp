#pragma once
#include <string>
#include <vector>

#include "collimate/device/staging.hpp"

namespace collimate {

/// When a reservation is needed. Phases overlay each other: the larger one is paid, not the sum.
enum class Lifetime { always, rollout, update };

/// A ticket for reserved memory; becomes a tensor once the plan is committed.
struct Slot {
  int index = -1;
  explicit operator bool() const { return index >= 0; }
};

/// The most bytes that a plan may take of each memory; 0: no bound but the machine's.
struct MemoryCaps {
  std::size_t device = 0, host = 0;
};

/// All memory of a run: everything is reserved by name first, then allocated once, then only viewed.
/// Every reservation is aligned to 64 bytes.
class MemoryPlan {
 public:
  explicit MemoryPlan(Device& device);
  /// Throws once the plan is committed.
  Slot reserve(std::string name, std::size_t bytes, Lifetime lifetime = Lifetime::always, Memory memory = Memory::device);
  Slot reserve(std::string name, Shape shape, DType dtype, Lifetime lifetime = Lifetime::always, Memory memory = Memory::device);
  std::size_t planned_bytes(Memory memory) const;  ///< what commit allocates
  /// Of all memories that are the host's own: on a CPU all of them, else what is not on the device.
  std::size_t host_bytes() const;
  std::size_t allocated_bytes() const;             ///< what commit has allocated, over all memories
  std::string report() const;                      ///< one line per reservation with its bytes, then the totals
  /// Refuses with exit code 3, naming the largest reservations, what needs more of a memory than its cap or than the machine has.
  void check_caps(const MemoryCaps& caps) const;
  void commit(const MemoryCaps& caps = {});  ///< after check_caps, allocates
  bool committed() const { return committed_; }
  /// Begins a phase: what is reserved for it takes the place of what the other phase left, which cannot be viewed any more.
  void enter(Lifetime phase);
  /// A view of the slot's first elements; the slot must be large enough and of this phase.
  Tensor at(Slot slot, Shape shape, DType dtype = DType::f32) const;
  Device& device() const { return *device_; }
  Staging& staging() { return staging_; }  ///< of all tenants; once the plan is committed

 private:
  struct Entry {
    std::string name;
    std::size_t bytes, offset;
    Lifetime lifetime;
    Memory memory;
  };
  std::size_t bytes_of(Memory memory, Lifetime lifetime) const;
  Device* device_;
  std::vector<Entry> entries_;
  std::size_t sums_[3][3] = {};  // bytes of the entries, by memory and lifetime
  Buffer buffers_[3];
  Staging staging_;
  Slot ring_;
  bool committed_ = false;
  Lifetime phase_ = Lifetime::always;  // none yet
};

}  // namespace collimate
