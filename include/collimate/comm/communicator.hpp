#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "collimate/device/tensor.hpp"

namespace collimate {

/// A tensor that goes to, or comes from, another rank.
struct Message {
  Tensor data;
  int peer;
};

/// The elements [begin, begin + count) of a longer range.
struct Part {
  std::int64_t begin = 0, count = 0;
  bool operator==(const Part&) const = default;
};
/// The rank-th of `ranks` parts of n elements: [n*rank/ranks, n*(rank+1)/ranks). Parts differ by one at most and may be empty.
Part part_of(std::int64_t n, int rank, int ranks);

/// Messages under way. Their tensors must stay as they are until wait() (or the destructor, which waits too; but where an exception ends
/// its life, only for a second, since other ranks may not answer any more: then the messages are given up).
class Transfer {
 public:
  virtual ~Transfer() = default;
  virtual void wait() = 0;
};

/// Some ranks that work together. Every rank of it must make the same calls in the same order.
///
/// It moves messages and adds nothing (but all_reduce_unordered): sums in a fixed order are built on it in the room `collectives`.
/// Tensor operations are enqueued on a stream and name their output first. Results never depend on message timing.
/// Counts are elements and may exceed 2^31. A communicator of one rank does nothing but copy, so callers never ask.
/// No tensor operation allocates in proportion to its tensors.
class Communicator {
 public:
  Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual void barrier() = 0;

  /// Sends and receives all of these at once; between two ranks messages match in order. A rank may send to itself.
  virtual void exchange(std::span<const Message> sends, std::span<const Message> receives, Stream& stream) = 0;
  /// The same without waiting for it: between two ranks all messages match in the order in which they were started.
  virtual std::unique_ptr<Transfer> start(std::span<const Message> sends, std::span<const Message> receives, Stream& stream) = 0;
  virtual void broadcast(Tensor data, int root, Stream& stream) = 0;
  /// all = the ranks' pieces one after the other, counts[r] elements from rank r; `mine` may be its own place in `all`.
  virtual void all_gather(Tensor all, Tensor mine, std::span<const std::int64_t> counts, Stream& stream) = 0;

  void all_gather(Tensor all, Tensor mine, Stream& stream);  ///< equal pieces
  void send(Tensor data, int to, Stream& stream);
  void receive(Tensor data, int from, Stream& stream);

  /// The sum over the ranks in whatever order the library takes: only for numerics.mode = fast.
  virtual void all_reduce_unordered(Tensor data, Stream& stream) = 0;
  /// Bytes of tensors that this rank has sent to others by the operations above; an all_gather counts a piece once for each other rank.
  virtual std::int64_t sent_bytes() const = 0;

  // Host data, at once and of any size; for set-up, verdicts and small arrays.
  virtual std::vector<std::vector<std::byte>> gather_bytes(std::span<const std::byte> mine) = 0;
  virtual void broadcast_bytes(std::vector<std::byte>& data, int root) = 0;  ///< resizes it on the other ranks

  /// Seconds that this rank has spent in calls that wait for other ranks, since this was made.
  double waited() const { return waited_; }
  double transfers_waited() const { return transfers_waited_; }  ///< of these, for what start() has started

 protected:
  /// silent: set while this rank must not communicate, for all communicators of a World; null: for this one alone.
  explicit Communicator(bool* silent) : silent_(silent ? silent : &own_silent_) {}
  void check_may_speak(const char* call) const;  ///< throws where it must not
  double waited_ = 0, transfers_waited_ = 0;

 private:
  friend void agree_on(Communicator& ranks, const std::function<void()>& step);
  bool own_silent_ = false;
  bool* silent_ = &own_silent_;
};

/// A communicator of one rank; needs no MPI.
std::unique_ptr<Communicator> make_single_communicator();

/// Every rank's vector on every rank, in rank order.
template <class T>
  requires std::is_trivially_copyable_v<T>
std::vector<std::vector<T>> gather_all(Communicator& ranks, const std::vector<T>& mine) {
  std::vector<std::vector<T>> all;
  for (const auto& bytes : ranks.gather_bytes(std::as_bytes(std::span(mine)))) {
    all.emplace_back(bytes.size() / sizeof(T));
    if (!bytes.empty()) std::memcpy(all.back().data(), bytes.data(), bytes.size());
  }
  return all;
}
/// Every rank's value on every rank.
template <class T>
  requires std::is_arithmetic_v<T>
std::vector<T> gather_all(Communicator& ranks, T mine) {
  std::vector<T> all;
  for (const auto& one : gather_all(ranks, std::vector<T>{mine})) all.push_back(one[0]);
  return all;
}
std::vector<std::string> gather_all(Communicator& ranks, const std::string& mine);

/// The root's vector on every rank.
template <class T>
  requires std::is_trivially_copyable_v<T>
void broadcast(Communicator& ranks, std::vector<T>& data, int root = 0) {
  const auto view = std::as_bytes(std::span(data));
  std::vector<std::byte> bytes(view.begin(), view.end());
  ranks.broadcast_bytes(bytes, root);
  data.resize(bytes.size() / sizeof(T));
  if (!bytes.empty()) std::memcpy(data.data(), bytes.data(), bytes.size());
}
void broadcast(Communicator& ranks, std::string& text, int root = 0);

/// An error that all ranks of a communicator threw together: every rank may leave in order, without MPI_Abort.
class AgreedError : public Error {
 public:
  using Error::Error;
};

/// Runs a step that may fail on some ranks only (open, allocate, NaN, signal). If it threw on any rank, every rank throws
/// the same AgreedError, the lowest failing rank's, "[rank 1] sentence"; so nobody waits in the next collective call.
/// The step itself must not communicate, since the ranks in which it has failed would not answer: what it asks of a communicator of the
/// same World throws. So what may fail on one rank alone comes first, and messages after it.
void agree_on(Communicator& ranks, const std::function<void()>& step);

/// agree_on for a step that gives a value.
template <class Step>
auto agree(Communicator& ranks, Step&& step) {
  using Result = std::invoke_result_t<Step>;
  if constexpr (std::is_void_v<Result>) {
    agree_on(ranks, step);
  } else {
    std::optional<Result> result;
    agree_on(ranks, [&] { result.emplace(step()); });
    return std::move(*result);
  }
}

}  // namespace collimate
