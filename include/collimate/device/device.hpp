#pragma once
#include <cstddef>
#include <memory>
#include <string>

namespace collimate {

/// Where bytes lie: on the device, in pageable host memory, or in host memory pinned for transfers.
/// On the CPU device all three are host memory.
enum class Memory { device, host, pinned };

/// An in-order queue of work on one device. CPU streams run at once.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual void wait() = 0;  ///< returns when all work queued so far is done
};

/// A processor with its memory.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;
  virtual std::size_t capacity(Memory) const { return 0; }  ///< bytes that the machine has of this memory; 0: not known
  virtual void* allocate(std::size_t bytes, Memory memory) = 0;  ///< 4,096-byte aligned, zeroed; throws does_not_fit
  virtual void release(void* pointer, std::size_t bytes, Memory memory) noexcept = 0;
  virtual void copy(void* destination, const void* source, std::size_t bytes, Stream& stream) = 0;
  virtual void zero(void* destination, std::size_t bytes, Stream& stream) = 0;
  virtual Stream& stream() = 0;  ///< the stream of computation
};

/// The host processor.
std::unique_ptr<Device> make_cpu_device();

}  // namespace collimate
