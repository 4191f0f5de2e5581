#include "collimate/device/memory_plan.hpp"

#include <algorithm>

namespace collimate {
namespace {

constexpr std::size_t alignment = 64;
constexpr Memory memories[] = {Memory::device, Memory::host, Memory::pinned};
constexpr const char* memory_names[] = {"device", "host", "pinned"};
constexpr const char* lifetime_names[] = {"always", "rollout", "update"};

double mebibytes(std::size_t bytes) { return static_cast<double>(bytes) / 1048576.0; }

}  // namespace

std::size_t Device::capacity(Memory memory) const {
  std::size_t least = 0;
  for (const MemoryLimit& limit : limits(memory)) least = least ? std::min(least, limit.bytes) : limit.bytes;
  return least;
}

MemoryPlan::MemoryPlan(Device& device) : device_(&device) {
  if (const std::size_t bytes = Staging::bytes(device.is_host())) ring_ = reserve("staging", bytes, Lifetime::always, Memory::pinned);
}

Slot MemoryPlan::reserve(std::string name, std::size_t bytes, Lifetime lifetime, Memory memory) {
  ensure(!committed_, "'{}' was reserved after the memory plan was committed", name);
  const std::size_t offset = bytes_of(memory, lifetime);
  entries_.push_back({std::move(name), (bytes + alignment - 1) / alignment * alignment, offset, lifetime, memory});
  sums_[static_cast<int>(memory)][static_cast<int>(lifetime)] += entries_.back().bytes;
  return Slot{static_cast<int>(entries_.size()) - 1};
}

Slot MemoryPlan::reserve(std::string name, Shape shape, DType dtype, Lifetime lifetime, Memory memory) {
  return reserve(std::move(name), static_cast<std::size_t>(shape.count()) * size_of(dtype), lifetime, memory);
}

std::size_t MemoryPlan::bytes_of(Memory memory, Lifetime lifetime) const {
  return sums_[static_cast<int>(memory)][static_cast<int>(lifetime)];
}

std::size_t MemoryPlan::planned_bytes(Memory memory) const {
  return bytes_of(memory, Lifetime::always) + std::max(bytes_of(memory, Lifetime::rollout), bytes_of(memory, Lifetime::update));
}

std::size_t MemoryPlan::allocated_bytes() const {
  std::size_t sum = 0;
  for (const Buffer& buffer : buffers_) sum += buffer.bytes();
  return sum;
}

std::string MemoryPlan::report() const {
  std::string out;
  for (const Entry& entry : entries_)
    out += fmt::format("  {:<44} {:>12.3f} MiB  {:<7} {}\n", entry.name, mebibytes(entry.bytes),
                       memory_names[static_cast<int>(entry.memory)], lifetime_names[static_cast<int>(entry.lifetime)]);
  for (const Memory memory : memories)
    if (planned_bytes(memory))
      out += fmt::format("  total {:<38} {:>12.3f} MiB{}\n", memory_names[static_cast<int>(memory)], mebibytes(planned_bytes(memory)),
                         bytes_of(memory, Lifetime::rollout) && bytes_of(memory, Lifetime::update) ? "  (rollout and update use the same memory)" : "");
  if (committed_) {
    std::size_t planned = 0;
    for (const Memory memory : memories) planned += planned_bytes(memory);
    ensure(allocated_bytes() == planned, "{} bytes are allocated and {} were planned", allocated_bytes(), planned);
    out += fmt::format("  {:<44} {:>12.3f} MiB, as planned\n", "allocated", mebibytes(planned));
  }
  return out;
}

std::size_t MemoryPlan::host_bytes() const {
  return planned_bytes(Memory::host) + planned_bytes(Memory::pinned) + (device_->is_host() ? planned_bytes(Memory::device) : 0);
}

void MemoryPlan::check_caps(const MemoryCaps& caps) const {
  const auto check = [&](std::size_t needed, std::size_t allowed, const char* where, const std::string& who, const auto& counts) {
    if (!allowed || needed <= allowed) return;
    std::vector<Entry> largest;
    for (const Entry& entry : entries_)
      if (counts(entry.memory)) largest.push_back(entry);
    std::stable_sort(largest.begin(), largest.end(), [](const Entry& a, const Entry& b) { return a.bytes > b.bytes; });
    std::string names;
    for (std::size_t i = 0; i < std::min<std::size_t>(3, largest.size()); ++i)
      names += fmt::format("{}{} ({:.1f} MiB)", i ? ", " : "", largest[i].name, mebibytes(largest[i].bytes));
    fail_with(ExitCode::does_not_fit, "the run needs {:.1f} MiB {} and {}; the largest parts are {}", mebibytes(needed), where,
              fmt::format(fmt::runtime(who), mebibytes(allowed)), names);
  };
  const auto on_device = [](Memory memory) { return memory == Memory::device; };
  const auto outside = [](Memory memory) { return memory != Memory::device; };
  check(planned_bytes(Memory::device), device_->capacity(Memory::device), "on the device", "the machine has {:.1f} MiB for it", on_device);
  if (device_->is_host())
    check(host_bytes(), device_->capacity(Memory::host), "in all", "the machine has {:.1f} MiB", [](Memory) { return true; });
  check(planned_bytes(Memory::device), caps.device, "on the device", "memory.device allows {:.1f} MiB", on_device);
  check(planned_bytes(Memory::host) + planned_bytes(Memory::pinned), caps.host, "in host memory", "memory.host allows {:.1f} MiB", outside);
}

void MemoryPlan::commit(const MemoryCaps& caps) {
  ensure(!committed_, "the memory plan was committed twice");
  check_caps(caps);
  for (const Memory memory : memories) buffers_[static_cast<int>(memory)] = Buffer(*device_, planned_bytes(memory), memory);
  committed_ = true;
  if (ring_) staging_.prepare(at(ring_, {static_cast<std::int64_t>(entries_[ring_.index].bytes)}, DType::u8));
}

void MemoryPlan::enter(Lifetime phase) {
  ensure(committed_ && phase != Lifetime::always, "a phase was entered before the plan is committed");
  if (phase == phase_) return;
  phase_ = phase;
  const std::size_t always = bytes_of(Memory::device, Lifetime::always);
  const Buffer& buffer = buffers_[static_cast<int>(Memory::device)];
  if (always < buffer.bytes())
    device_->forget({static_cast<std::byte*>(buffer.data()) + always, DType::u8, {static_cast<std::int64_t>(buffer.bytes() - always)}, *device_});
}

Tensor MemoryPlan::at(Slot slot, Shape shape, DType dtype) const {
  ensure(committed_ && slot, "a tensor was asked of a plan that is not committed");
  const Entry& entry = entries_[slot.index];
  ensure(entry.lifetime == Lifetime::always || entry.lifetime == phase_, "'{}' is used in another phase than {}", entry.name,
         lifetime_names[static_cast<int>(entry.lifetime)]);
  if (static_cast<std::size_t>(shape.count()) * size_of(dtype) > entry.bytes)
    fail_with(ExitCode::failure, "'{}' holds {} bytes, too few for {} of shape {}", entry.name, entry.bytes, name_of(dtype), shape.text());
  const std::size_t base = entry.lifetime == Lifetime::always ? 0 : bytes_of(entry.memory, Lifetime::always);
  auto* data = static_cast<std::byte*>(buffers_[static_cast<int>(entry.memory)].data()) + base + entry.offset;
  return {data, dtype, shape, entry.memory == Memory::device ? *device_ : device_->host()};
}

}  // namespace collimate
