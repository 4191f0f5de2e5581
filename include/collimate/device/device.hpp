#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace collimate {

/// Where bytes lie: on the device, in pageable host memory, or in host memory pinned for transfers.
/// On the CPU device all three are host memory.
enum class Memory { device, host, pinned };

/// A bound on what some processes of a node may use together: all those for which the device names it.
struct MemoryLimit {
  std::string name;
  std::size_t bytes;
};

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
  virtual std::vector<MemoryLimit> limits(Memory) const { return {}; }  ///< of this memory; none: not known
  std::size_t capacity(Memory memory) const;  ///< bytes of the smallest limit; 0: not known
  virtual void* allocate(std::size_t bytes, Memory memory) = 0;  ///< 4,096-byte aligned, zeroed; throws does_not_fit
  virtual void release(void* pointer, std::size_t bytes, Memory memory) noexcept = 0;
  virtual void copy(void* destination, const void* source, std::size_t bytes, Stream& stream) = 0;
  virtual void zero(void* destination, std::size_t bytes, Stream& stream) = 0;
  virtual Stream& stream() = 0;  ///< the stream of computation
};

/// The host processor.
std::unique_ptr<Device> make_cpu_device();

}  // namespace collimate
