#include "collimate/device/strict_device.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <random>

#include "collimate/base/text.hpp"
#include "collimate/device/tensor.hpp"
#include "device/strict/guard.hpp"

namespace collimate {
namespace {


class StrictDevice;

/// What a stream has to do next: some work, or to wait for an event of another one.
struct Task {
  std::function<void()> work;
  Event awaited;
  bool copies = false;
};

class StrictStream final : public Stream {
 public:
  explicit StrictStream(StrictDevice& owner) : owner_(&owner) {}
  Device& device() const override;
  void wait() override { finish(record()); }
  Event record() override { return {this, queued_}; }
  void wait(const Event& event) override;
  void finish(const Event& event) override;
  void queue(std::function<void()> work) override { push({std::move(work), {}, false}); }
  void copy_bytes(const Tensor& to, const Tensor& from) override;
  void zero_bytes(const Tensor& tensor) override;

  bool happened(const Event& event) const { return static_cast<const StrictStream*>(event.stream)->done_ >= event.place; }
  bool ready() const { return !tasks_.empty() && (!tasks_.front().awaited.stream || happened(tasks_.front().awaited)); }
  bool copies_next() const { return tasks_.front().copies; }
  /// The stream whose work is in the way of this one's next task, or itself.
  StrictStream& blocker() {
    StrictStream* stream = this;
    for (int steps = 0; !stream->ready(); ++steps) {
      ensure(steps < 4 && !stream->tasks_.empty(), "the streams of the strict device wait for each other in a circle");
      stream = static_cast<StrictStream*>(stream->tasks_.front().awaited.stream);
    }
    return *stream;
  }
  void run_next() {
    const Task task = std::move(tasks_.front());
    tasks_.pop_front();
    if (task.work) task.work();
    ++done_;
  }
  void abandon() {  ///< what is queued
    tasks_.clear();
    done_ = queued_;
  }

 private:
  void push(Task task) {
    tasks_.push_back(std::move(task));
    ++queued_;
  }
  StrictDevice* owner_;
  std::deque<Task> tasks_;
  std::uint64_t queued_ = 0, done_ = 0;
};

class StrictDevice final : public Device {
 public:
  explicit StrictDevice(const StrictOptions& options) : options_(options), engine_(options.seed), host_(make_cpu_device()) {}
  std::string name() const override { return "strict device"; }
  BackEnd back_end() const override { return BackEnd::strict; }
  std::vector<MemoryLimit> limits(Memory memory) const override { return host_->limits(memory); }
  Stream& stream(Lane lane) override { return streams_[static_cast<std::size_t>(lane)]; }
  Device& host() override { return *host_; }

  void* allocate(std::size_t bytes, Memory memory) override {
    if (memory != Memory::device) return host_->allocate(bytes, memory);
    const std::size_t length = (bytes + page - 1) / page * page;
    const int file = ::memfd_create("collimate", 0);
    const bool sized = file >= 0 && ::ftruncate(file, static_cast<off_t>(length)) == 0;
    void* const seen = sized ? ::mmap(nullptr, length, PROT_NONE, MAP_SHARED, file, 0) : MAP_FAILED;
    void* const real = sized ? ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
    const int error = errno;
    if (file >= 0) ::close(file);
    if (seen == MAP_FAILED || real == MAP_FAILED)
      fail_with(ExitCode::does_not_fit, "the strict device cannot map {} bytes twice: {}", length, std::strerror(error));
    std::fill_n(static_cast<std::uint32_t*>(real), length / sizeof strict_poison, strict_poison);
    ranges_[static_cast<std::byte*>(seen)] = {length, static_cast<std::byte*>(real)};
    guard_memory(seen, length);
    return seen;
  }
  void release(void* pointer, std::size_t bytes, Memory memory) noexcept override {
    try {
      for (StrictStream& stream : streams_) stream.wait();  // what an error left behind may still use it
    } catch (const Error&) {  // of which nobody needs the result
    }
    if (memory != Memory::device) return host_->release(pointer, bytes, memory);
    const auto range = ranges_.find(static_cast<std::byte*>(pointer));
    forget_memory(pointer);
    ::munmap(range->second.real, range->second.length);
    ::munmap(pointer, range->second.length);
    ranges_.erase(range);
  }
  void* reach(void* data) const override {
    auto* const place = static_cast<std::byte*>(data);
    auto range = ranges_.upper_bound(place);
    if (range == ranges_.begin()) return data;
    --range;
    return place <= range->first + range->second.length ? range->second.real + (place - range->first) : data;
  }

  void forget(const Tensor& tensor) override {
    for (StrictStream& stream : streams_) stream.wait();
    std::fill_n(static_cast<std::uint32_t*>(reach(tensor.data())), tensor.bytes() / sizeof strict_poison, strict_poison);
  }

  /// Runs what may run, until the event has happened.
  void run_until(StrictStream& stream, const Event& event) {
    try {
      while (!stream.happened(event)) choose(stream).run_next();
    } catch (...) {  // nothing that comes later can be right
      for (StrictStream& each : streams_) each.abandon();
      throw;
    }
  }
  /// Whether the test asked to leave this one out.
  bool left_out(Fault::Kind kind) {
    const std::int64_t number = counts_[static_cast<std::size_t>(kind)]++;
    return options_.fault && options_.fault->kind == kind && options_.fault->number == number;
  }

 private:
  static constexpr std::size_t page = 4096;
  struct Range {
    std::size_t length;
    std::byte* real;
  };

  StrictStream& choose(StrictStream& wanted) {
    if (options_.order == StrictOrder::late) return wanted.blocker();
    std::vector<StrictStream*> ready, preferred;
    for (StrictStream& stream : streams_)
      if (stream.ready()) {
        ready.push_back(&stream);
        if (options_.order != StrictOrder::random && stream.copies_next() == (options_.order == StrictOrder::copies_first))
          preferred.push_back(&stream);
      }
    ensure(!ready.empty(), "the streams of the strict device wait for each other in a circle");
    const auto& from = preferred.empty() ? ready : preferred;
    return *from[engine_() % from.size()];
  }

  StrictOptions options_;
  std::mt19937_64 engine_;
  std::unique_ptr<Device> host_;
  std::map<std::byte*, Range> ranges_;
  std::array<StrictStream, 4> streams_{StrictStream(*this), StrictStream(*this), StrictStream(*this), StrictStream(*this)};
  std::array<std::int64_t, 3> counts_{};
};

Device& StrictStream::device() const { return *owner_; }

void StrictStream::wait(const Event& event) {
  if (event.stream && !owner_->left_out(Fault::Kind::wait)) push({nullptr, event, false});
}

void StrictStream::finish(const Event& event) {
  if (!owner_->left_out(Fault::Kind::finish)) owner_->run_until(*this, event);
}

void StrictStream::copy_bytes(const Tensor& to, const Tensor& from) {
  if (to.bytes() == 0 || owner_->left_out(Fault::Kind::copy)) return;
  push({[to = owner_->reach(to.data()), from = owner_->reach(from.data()), bytes = to.bytes()] { std::memmove(to, from, bytes); }, {}, true});
}

void StrictStream::zero_bytes(const Tensor& tensor) {
  if (tensor.bytes()) push({[to = owner_->reach(tensor.data()), bytes = tensor.bytes()] { std::memset(to, 0, bytes); }, {}, false});
}

}  // namespace

std::unique_ptr<Device> make_strict_device(const StrictOptions& options) { return std::make_unique<StrictDevice>(options); }

StrictOptions strict_options(const std::string& text) {
  constexpr const char* orders[] = {"random", "copies_first", "kernels_first", "late"};
  const std::vector<std::string> words = split(text, ':');
  require(!words.empty() && words.size() <= 4 && words[0] == "strict",
          "'{}' names no device: cpu, or strict[:SEED[:ORDER[:FAULT=N]]] with an order among random, copies_first, kernels_first, late", text);
  StrictOptions options;
  if (words.size() > 1) options.seed = std::strtoull(words[1].c_str(), nullptr, 10);
  if (words.size() < 3) return options;
  const auto order = std::find(std::begin(orders), std::end(orders), words[2]);
  require(order != std::end(orders), "'{}' is no order of the strict device: random, copies_first, kernels_first or late", words[2]);
  options.order = static_cast<StrictOrder>(order - std::begin(orders));
  if (words.size() < 4) return options;
  const std::vector<std::string> fault = split(words[3], '=');
  constexpr const char* kinds[] = {"wait", "copy", "finish"};
  const auto kind = std::find(std::begin(kinds), std::end(kinds), fault[0]);
  require(fault.size() == 2 && kind != std::end(kinds), "'{}' is no fault of the strict device: wait=N, copy=N or finish=N", words[3]);
  options.fault = Fault{static_cast<Fault::Kind>(kind - std::begin(kinds)), std::strtoll(fault[1].c_str(), nullptr, 10)};
  return options;
}

}  // namespace collimate
