#pragma once
#include <algorithm>
#include <memory>
#include <vector>

#include "collimate/comm/communicator.hpp"

namespace collimate::test {

enum class Harm {
  none,
  skip,  ///< what a gather brings is not taken: this rank keeps what it had
  drop,  ///< the first message that is sent arrives as zeros
  swap   ///< the first two pieces of a gather change places
};

/// What a wire does to the next fitting operation, once.
struct Saboteur {
  Harm harm = Harm::none;
  bool take(Harm wanted) {
    if (harm != wanted) return false;
    harm = Harm::none;
    return true;
  }
};

/// A communicator that passes everything on, but for what the saboteur harms.
class Wire : public Communicator {
 public:
  Wire(std::unique_ptr<Communicator> inner, Saboteur& saboteur) : inner_(std::move(inner)), saboteur_(saboteur) {}
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  void barrier() override { inner_->barrier(); }
  void exchange(std::span<const Message> sends, std::span<const Message> receives, Stream& stream) override {
    std::vector<Message> messages(sends.begin(), sends.end());
    std::vector<float> zeros;
    const auto other = std::find_if(messages.begin(), messages.end(), [&](const Message& m) { return m.peer != rank(); });
    if (other != messages.end() && saboteur_.take(Harm::drop)) {
      zeros.resize(other->data.count());
      other->data = Tensor(zeros.data(), DType::f32, {other->data.count()}, other->data.device());
    }
    inner_->exchange(messages, receives, stream);
  }
  std::unique_ptr<Transfer> start(std::span<const Message> sends, std::span<const Message> receives, Stream& stream) override {
    return inner_->start(sends, receives, stream);
  }
  void broadcast(Tensor data, int root, Stream& stream) override { inner_->broadcast(data, root, stream); }
  void all_gather(Tensor all, Tensor mine, std::span<const std::int64_t> counts, Stream& stream) override {
    const std::vector<float> before(all.as<float>(), all.as<float>() + all.count());
    inner_->all_gather(all, mine, counts, stream);
    if (saboteur_.take(Harm::skip)) std::copy(before.begin(), before.end(), all.as<float>());
    if (saboteur_.take(Harm::swap))
      std::swap_ranges(all.as<float>(), all.as<float>() + std::min(counts[0], counts[1]), all.as<float>() + counts[0]);
  }
  void all_reduce_unordered(Tensor data, Stream& stream) override { inner_->all_reduce_unordered(data, stream); }
  std::int64_t sent_bytes() const override { return inner_->sent_bytes(); }
  std::vector<std::vector<std::byte>> gather_bytes(std::span<const std::byte> mine) override { return inner_->gather_bytes(mine); }
  void broadcast_bytes(std::vector<std::byte>& data, int root) override { inner_->broadcast_bytes(data, root); }

 private:
  std::unique_ptr<Communicator> inner_;
  Saboteur& saboteur_;
};

}  // namespace collimate::test
