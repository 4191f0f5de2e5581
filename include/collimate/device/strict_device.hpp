#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "collimate/device/device.hpp"

namespace collimate {

/// Which of the works that may run next a strict device takes.
enum class StrictOrder {
  random,         ///< any of them, by the seed
  copies_first,   ///< copies before kernels, whatever their age
  kernels_first,  ///< kernels before copies
  late            ///< nothing but what is waited for
};

/// A mistake that a test asks the strict device to make, to see it found.
struct Fault {
  enum class Kind {
    wait,   ///< a stream's wait for an event is left out
    copy,   ///< a copy is left out
    finish  ///< the host does not wait where it should
  };
  Kind kind = Kind::wait;
  std::int64_t number = 0;  ///< which one of its kind, from 0
};

/// What fresh memory and memory of another phase is filled with: a signalling NaN as f32 and as bf16, far out of any vocabulary as i32.
constexpr std::uint32_t strict_poison = 0x7fa57fa5;

struct StrictOptions {
  std::uint64_t seed = 1;
  StrictOrder order = StrictOrder::random;
  std::optional<Fault> fault = {};
};

/// The CPU's operations as on a device with memory of its own, to find on a laptop what would be a race on a GPU (tests). Host code that touches
/// device memory is stopped with a sentence. Nothing runs when it is called: kernels, copies and fills are queued on their streams and run when an
/// event or a wait asks for them, in an order that the streams and events allow. Fresh memory, and what another phase left,
/// holds signalling numbers. Its results are the CPU's.
std::unique_ptr<Device> make_strict_device(const StrictOptions& options = {});

/// Of "strict", "strict:SEED", "strict:SEED:ORDER" (random, copies_first, kernels_first or late) or "strict:SEED:ORDER:FAULT=N" (the N-th wait,
/// copy or finish is left out). Refuses anything else.
StrictOptions strict_options(const std::string& text);

}  // namespace collimate
