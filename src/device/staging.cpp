#include "collimate/device/staging.hpp"

#include <cstring>

namespace collimate {
namespace {

/// The bytes [begin, begin + count) of a tensor as a tensor of their own.
Tensor bytes_of(const Tensor& tensor, std::size_t begin, std::size_t count) {
  return {static_cast<std::byte*>(tensor.data()) + begin, DType::u8, {static_cast<std::int64_t>(count)}, tensor.device()};
}

void check(const Tensor& to, const Tensor& from) {
  ensure(to.count() == from.count() && to.dtype() == from.dtype(), "{} {} are brought to {} {}", from.count(), name_of(from.dtype()),
         to.count(), name_of(to.dtype()));
}

}  // namespace

void Staging::prepare(const Tensor& ring) { ring_ = ring; }

void Staging::put_bytes(const Tensor& to, const Tensor& from, Stream& stream) {
  check(to, from);
  if (!ring_ || to.device().is_host()) return copy(to, from, to.device().is_host() ? to.device().stream() : stream);
  for (std::size_t begin = 0; begin < to.bytes(); begin += piece_bytes) {
    const std::size_t count = std::min(piece_bytes, to.bytes() - begin), slot = next_++ % pieces;
    const Tensor piece = bytes_of(ring_, slot * piece_bytes, count);
    if (last_[slot].stream) last_[slot].stream->finish(last_[slot]);
    std::memcpy(piece.data(), static_cast<const std::byte*>(from.data()) + begin, count);
    copy(bytes_of(to, begin, count), piece, stream);
    last_[slot] = stream.record();
  }
}

void Staging::get_bytes(const Tensor& to, const Tensor& from, Stream& stream) {
  check(to, from);
  if (!ring_ || from.device().is_host()) {
    Stream& own = from.device().stream();
    copy(to, from, own);
    return own.wait();
  }
  for (std::size_t begin = 0; begin < to.bytes(); begin += piece_bytes) {
    const std::size_t count = std::min(piece_bytes, to.bytes() - begin), slot = next_++ % pieces;
    const Tensor piece = bytes_of(ring_, slot * piece_bytes, count);
    if (last_[slot].stream) last_[slot].stream->finish(last_[slot]);
    copy(piece, bytes_of(from, begin, count), stream);
    last_[slot] = stream.record();
    stream.finish(last_[slot]);
    std::memcpy(static_cast<std::byte*>(to.data()) + begin, piece.data(), count);
  }
}

}  // namespace collimate
