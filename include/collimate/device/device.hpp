#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace collimate {

class Device;
class Tensor;

/// Where bytes lie: on the device, in pageable host memory, or in host memory pinned for transfers.
/// On the CPU device all three are host memory.
enum class Memory { device, host, pinned };

/// Whose kernels compute on a device (a row of kernels::table_of).
enum class BackEnd { cpu, strict, dry };

/// Queues of a device that run beside each other: computation, copies towards the device, copies away from it, messages.
enum class Lane { compute, fetch, spill, communicate };

/// A bound on what some processes of a node may use together: all those for which the device names it.
struct MemoryLimit {
  std::string name;
  std::size_t bytes;
};

class Stream;

/// A place in a stream's work: all that was queued before it.
struct Event {
  Stream* stream = nullptr;  ///< null: nothing to wait for
  std::uint64_t place = 0;
};

/// An in-order queue of work on one device. CPU streams run at once.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual Device& device() const = 0;
  virtual void wait() = 0;                    ///< returns when all work queued so far is done
  virtual Event record() = 0;                 ///< what is queued so far
  virtual void wait(const Event& event) = 0;  ///< what is queued from now on runs after the event; does not block the host
  virtual void finish(const Event& event) = 0;  ///< returns when the event, one of this stream, has happened
  /// Runs `work` in the stream's order. It reaches a device's memory by Device::reach alone.
  virtual void queue(std::function<void()> work) = 0;
  /// Of equal size; both must stay as they are until the copy has run. Use copy() and Tensor::zero.
  virtual void copy_bytes(const Tensor& to, const Tensor& from) = 0;
  virtual void zero_bytes(const Tensor& tensor) = 0;
};

/// A processor with its memory.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;
  virtual BackEnd back_end() const = 0;
  virtual std::vector<MemoryLimit> limits(Memory) const { return {}; }  ///< of this memory; none: not known
  std::size_t capacity(Memory memory) const;  ///< bytes of the smallest limit; 0: not known
  virtual void* allocate(std::size_t bytes, Memory memory) = 0;  ///< 4,096-byte aligned, zeroed; throws does_not_fit
  virtual void release(void* pointer, std::size_t bytes, Memory memory) noexcept = 0;
  virtual Stream& stream(Lane lane = Lane::compute) = 0;
  /// The device whose memory is the host's: where tensors of host and pinned memory are. The CPU is its own.
  virtual Device& host() = 0;
  bool is_host() { return &host() == this; }
  /// These bytes hold nothing from now on, whatever was queued before: a device for tests fills them with numbers that show.
  virtual void forget(const Tensor&) {}
  /// The address under which the device's own work and messages reach what the host calls `data`.
  virtual void* reach(void* data) const { return data; }
};

/// The host processor.
std::unique_ptr<Device> make_cpu_device();
/// What this process computes on: the host processor or, where tests set COLLIMATE_DEVICE to strict[:SEED[:ORDER]], a strict device.
std::unique_ptr<Device> make_device();

}  // namespace collimate
