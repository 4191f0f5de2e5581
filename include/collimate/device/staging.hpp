#pragma once
#include <span>
#include <vector>

#include "collimate/device/tensor.hpp"

namespace collimate {

/// How host arrays of any length reach a device and come back: through a ring of pinned memory, so that an array may go as soon as put()
/// returns. On a device whose memory is the host's they are copied at once, and there is no ring.
class Staging {
 public:
  static constexpr std::size_t bytes(bool host) { return host ? 0 : pieces * piece_bytes; }  ///< of the ring
  void prepare(const Tensor& ring);                                                          ///< [bytes] u8, pinned

  /// Starts to bring the elements to `to`, of equal type and number.
  template <class T>
  void put(const Tensor& to, std::span<const T> from, Stream& stream) {
    put_bytes(to, on_host(from, to.device()), stream);
  }
  template <class T>
  void put(const Tensor& to, const std::vector<T>& from, Stream& stream) {
    put(to, std::span<const T>(from), stream);
  }
  /// Returns when the elements have come; waits for all that the stream has to do before.
  template <class T>
  void get(std::span<T> to, const Tensor& from, Stream& stream) {
    get_bytes(on_host(to, from.device()), from, stream);
  }
  template <class T>
  void get(std::vector<T>& to, const Tensor& from, Stream& stream) {
    get(std::span<T>(to), from, stream);
  }

 private:
  static constexpr std::size_t pieces = 4, piece_bytes = std::size_t{256} << 10;
  void put_bytes(const Tensor& to, const Tensor& from, Stream& stream);
  void get_bytes(const Tensor& to, const Tensor& from, Stream& stream);
  Tensor ring_;  // absent: the device is the host
  Event last_[pieces];
  std::size_t next_ = 0;
};

}  // namespace collimate
