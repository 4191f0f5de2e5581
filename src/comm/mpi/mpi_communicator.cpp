#include "comm/mpi/mpi_communicator.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <exception>
#include <numeric>
#include <thread>
#include <utility>

#include "collimate/base/timer.hpp"
#include "comm/mpi/short_messages.hpp"

namespace collimate {
namespace {

/// Takes receives back that nobody has answered. A message that is being sent cannot be taken back: MPI finishes it unseen.
void give_up(std::vector<MPI_Request>& requests) {
  for (MPI_Request& request : requests) {
    if (request == MPI_REQUEST_NULL) continue;
    MPI_Cancel(&request);
    MPI_Request_free(&request);
  }
  requests.clear();
}

class MpiTransfer final : public Transfer {
 public:
  /// waited: called with the seconds of each wait; its owner outlives this.
  MpiTransfer(std::vector<MPI_Request> requests, std::function<void(double)> waited)
      : requests_(std::move(requests)), waited_(std::move(waited)) {}
  ~MpiTransfer() override { std::uncaught_exceptions() > exceptions_ ? finish_soon() : static_cast<void>(finish()); }
  void wait() override { check_mpi(finish(), "MPI_Waitall"); }

 private:
  int finish() {
    if (requests_.empty()) return MPI_SUCCESS;
    const Stopwatch watch;
    const int result = MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE);
    requests_.clear();
    waited_(watch.seconds());
    return result;
  }
  /// Where all ranks stop together, the others' messages are here at once. Where this one stops alone, they may never come.
  void finish_soon() {
    const Stopwatch watch;
    for (int done = 0; !done && watch.seconds() < patience;) {
      if (MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE) != MPI_SUCCESS) break;
      if (!done) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    give_up(requests_);
  }
  static constexpr double patience = 1;  // seconds
  std::vector<MPI_Request> requests_;
  std::function<void(double)> waited_;
  int exceptions_ = std::uncaught_exceptions();
};

class MpiCommunicator final : public Communicator {
 public:
  using Communicator::all_gather;

  MpiCommunicator(MPI_Comm handle, bool* silent, std::size_t message_limit)
      : Communicator(silent), handle_(handle), message_limit_(message_limit) {
    check_mpi(MPI_Comm_set_errhandler(handle_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_rank(handle_, &rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(handle_, &size_), "MPI_Comm_size");
  }
  ~MpiCommunicator() override { MPI_Comm_free(&handle_); }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void barrier() override {
    wait_in("MPI_Barrier", [&] { return MPI_Barrier(handle_); });
  }
  void exchange(std::span<const Message> sends, std::span<const Message> receives, Stream& stream) override;
  std::unique_ptr<Transfer> start(std::span<const Message> sends, std::span<const Message> receives, Stream& stream) override;
  void all_reduce_unordered(Tensor data, Stream& stream) override;
  std::int64_t sent_bytes() const override { return sent_; }
  void broadcast(Tensor data, int root, Stream& stream) override;
  void all_gather(Tensor all, Tensor mine, std::span<const std::int64_t> counts, Stream& stream) override;
  std::vector<std::vector<std::byte>> gather_bytes(std::span<const std::byte> mine) override;
  void broadcast_bytes(std::vector<std::byte>& data, int root) override;

 private:
  /// Makes a call that may wait for other ranks, and counts its time.
  template <class Call>
  void wait_in(const char* name, const Call& call) {
    check_may_speak(name);
    const Stopwatch watch;
    check_mpi(call(), name);
    waited_ += watch.seconds();
  }
  void send_raw(const std::byte* data, std::size_t bytes, int peer);
  void receive_raw(std::byte* data, std::size_t bytes, int peer);
  void wait_all();
  void post(std::span<const Message> sends, std::span<const Message> receives);
  void copy_own(std::span<const Message> sends, std::span<const Message> receives) const;
  void broadcast_raw(std::byte* data, std::size_t bytes, int root);
  void gather_raw(std::byte* all, const std::byte* mine, std::span<const std::size_t> bytes);

  MPI_Comm handle_;
  std::size_t message_limit_;
  int rank_ = 0, size_ = 1;
  std::vector<MPI_Request> requests_;
  std::int64_t sent_ = 0;
};

/// Where messages reach the tensor, whichever device it is on.
std::byte* bytes_of(const Tensor& tensor) { return static_cast<std::byte*>(tensor.device().reach(tensor.data())); }

void MpiCommunicator::send_raw(const std::byte* data, std::size_t bytes, int peer) {
  sent_ += static_cast<std::int64_t>(bytes);
  for (std::size_t begin = 0; begin < bytes; begin += message_limit_) {
    const int length = static_cast<int>(std::min(message_limit_, bytes - begin));
    check_mpi(MPI_Isend(data + begin, length, MPI_BYTE, peer, 0, handle_, &requests_.emplace_back(MPI_REQUEST_NULL)), "MPI_Isend");
  }
}

void MpiCommunicator::receive_raw(std::byte* data, std::size_t bytes, int peer) {
  for (std::size_t begin = 0; begin < bytes; begin += message_limit_) {
    const int length = static_cast<int>(std::min(message_limit_, bytes - begin));
    check_mpi(MPI_Irecv(data + begin, length, MPI_BYTE, peer, 0, handle_, &requests_.emplace_back(MPI_REQUEST_NULL)), "MPI_Irecv");
  }
}

void MpiCommunicator::wait_all() {
  wait_in("MPI_Waitall", [&] { return MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE); });
  requests_.clear();
}

/// Starts the messages of an exchange as requests_. What is wrong with one of them is said before any has left.
void MpiCommunicator::post(std::span<const Message> sends, std::span<const Message> receives) {
  check_may_speak("exchange");
  for (const auto& messages : {sends, receives})
    for (const Message& message : messages)
      ensure(message.peer >= 0 && message.peer < size_, "a message goes to or comes from rank {} of {} ranks", message.peer, size_);
  copy_own(sends, receives);
  for (const Message& message : receives)
    if (message.peer != rank_) receive_raw(bytes_of(message.data), message.data.bytes(), message.peer);
  for (const Message& message : sends)
    if (message.peer != rank_) send_raw(bytes_of(message.data), message.data.bytes(), message.peer);
}

/// Messages to itself match in order, like all others.
void MpiCommunicator::copy_own(std::span<const Message> sends, std::span<const Message> receives) const {
  std::size_t next = 0;
  for (const Message& message : sends) {
    if (message.peer != rank_) continue;
    while (next < receives.size() && receives[next].peer != rank_) ++next;
    ensure(next < receives.size() && receives[next].data.bytes() == message.data.bytes(), "rank {} sends itself what it does not receive",
           rank_);
    std::memmove(bytes_of(receives[next++].data), bytes_of(message.data), message.data.bytes());
  }
}

void MpiCommunicator::exchange(std::span<const Message> sends, std::span<const Message> receives, Stream& stream) {
  stream.wait();
  post(sends, receives);
  wait_all();
}

std::unique_ptr<Transfer> MpiCommunicator::start(std::span<const Message> sends, std::span<const Message> receives, Stream& stream) {
  stream.wait();
  post(sends, receives);
  return std::make_unique<MpiTransfer>(std::exchange(requests_, {}), [this](double seconds) {
    waited_ += seconds;
    transfers_waited_ += seconds;
  });
}

void MpiCommunicator::broadcast_raw(std::byte* data, std::size_t bytes, int root) {
  for (std::size_t begin = 0; begin < bytes; begin += message_limit_) {
    const int length = static_cast<int>(std::min(message_limit_, bytes - begin));
    wait_in("MPI_Bcast", [&] { return MPI_Bcast(data + begin, length, MPI_BYTE, root, handle_); });
  }
}

void MpiCommunicator::broadcast(Tensor data, int root, Stream& stream) {
  stream.wait();
  if (rank_ == root) sent_ += static_cast<std::int64_t>(data.bytes()) * (size_ - 1);
  broadcast_raw(bytes_of(data), data.bytes(), root);
}

/// Every rank knows all counts, so all choose the same way: one collective, or messages where its int counts would overflow.
void MpiCommunicator::gather_raw(std::byte* all, const std::byte* mine, std::span<const std::size_t> bytes) {
  std::vector<std::size_t> begins(bytes.size());
  std::exclusive_scan(bytes.begin(), bytes.end(), begins.begin(), std::size_t{0});
  std::byte* const own = all + begins[rank_];
  if (begins.back() + bytes.back() <= message_limit_) {
    sent_ += static_cast<std::int64_t>(bytes[rank_]) * (size_ - 1);
    const std::vector<int> counts(bytes.begin(), bytes.end()), displacements(begins.begin(), begins.end());
    const void* source = own == mine ? MPI_IN_PLACE : mine;
    wait_in("MPI_Allgatherv", [&] {
      return MPI_Allgatherv(source, counts[rank_], MPI_BYTE, all, counts.data(), displacements.data(), MPI_BYTE, handle_);
    });
    return;
  }
  for (int step = 1; step < size_; ++step) {
    const int from = (rank_ + size_ - step) % size_, to = (rank_ + step) % size_;
    receive_raw(all + begins[from], bytes[from], from);
    send_raw(mine, bytes[rank_], to);
  }
  if (own != mine && bytes[rank_]) std::memcpy(own, mine, bytes[rank_]);
  wait_all();
}

void MpiCommunicator::all_gather(Tensor all, Tensor mine, std::span<const std::int64_t> counts, Stream& stream) {
  ensure(static_cast<int>(counts.size()) == size_, "all_gather got {} counts for {} ranks", counts.size(), size_);
  ensure(mine.count() == counts[rank_] && mine.dtype() == all.dtype() &&
             std::accumulate(counts.begin(), counts.end(), std::int64_t{0}) == all.count(),
         "all_gather's counts do not match tensors of {} and {} elements", mine.count(), all.count());
  std::vector<std::size_t> bytes;
  for (const std::int64_t count : counts) bytes.push_back(static_cast<std::size_t>(count) * size_of(all.dtype()));
  stream.wait();
  gather_raw(bytes_of(all), bytes_of(mine), bytes);
}

void MpiCommunicator::all_reduce_unordered(Tensor data, Stream& stream) {
  if (size_ == 1) return;
  stream.wait();
  sent_ += 2 * static_cast<std::int64_t>(data.bytes()) * (size_ - 1) / size_;  // a ring's
  const std::int64_t most = static_cast<std::int64_t>(message_limit_ / sizeof(float));
  for (std::int64_t begin = 0; begin < data.count(); begin += most)
    wait_in("MPI_Allreduce", [&] {
      const int length = static_cast<int>(std::min(most, data.count() - begin));
      std::byte* const elements = bytes_of(data) + begin * static_cast<std::int64_t>(sizeof(float));
      return MPI_Allreduce(MPI_IN_PLACE, elements, length, MPI_FLOAT, MPI_SUM, handle_);
    });
}

std::vector<std::vector<std::byte>> MpiCommunicator::gather_bytes(std::span<const std::byte> mine) {
  std::vector<std::size_t> bytes(static_cast<std::size_t>(size_));
  const std::size_t own = mine.size();
  wait_in("MPI_Allgather", [&] { return MPI_Allgather(&own, sizeof own, MPI_BYTE, bytes.data(), sizeof own, MPI_BYTE, handle_); });
  std::vector<std::byte> all(std::accumulate(bytes.begin(), bytes.end(), std::size_t{0}));
  const std::int64_t sent = sent_;
  if (!all.empty()) gather_raw(all.data(), mine.data(), bytes);
  sent_ = sent;  // host data are not counted
  std::vector<std::vector<std::byte>> parts;
  for (auto begin = all.begin(); const std::size_t length : bytes) {
    parts.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(length));
    begin += static_cast<std::ptrdiff_t>(length);
  }
  return parts;
}

void MpiCommunicator::broadcast_bytes(std::vector<std::byte>& data, int root) {
  std::size_t bytes = data.size();
  wait_in("MPI_Bcast", [&] { return MPI_Bcast(&bytes, sizeof bytes, MPI_BYTE, root, handle_); });
  data.resize(bytes);
  broadcast_raw(data.data(), bytes, root);
}

}  // namespace

void check_mpi(int result, const char* call) {
  if (result == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0, rank = -1, ready = 0;
  MPI_Error_string(result, text.data(), &length);
  MPI_Initialized(&ready);
  if (ready) MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  fail_with(ExitCode::failure,
            "{} failed on rank {}: {}; look for another rank's message before this one, and at the network and the memory of the node", call, rank,
            std::string_view(text.data(), static_cast<std::size_t>(length)));
}

std::unique_ptr<Communicator> make_mpi_communicator(MPI_Comm handle, bool* silent, std::size_t message_limit) {
  return std::make_unique<MpiCommunicator>(handle, silent, message_limit);
}

std::unique_ptr<Communicator> all_ranks_with_short_messages(std::size_t message_limit) {
  MPI_Comm copy = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &copy), "MPI_Comm_dup");
  return make_mpi_communicator(copy, nullptr, message_limit);
}

}  // namespace collimate
