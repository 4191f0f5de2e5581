#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace collimate {

/// A 64-bit checksum of a stream of bytes (XXH64, Y. Collet): finds damage, does not resist an attacker.
/// The result does not depend on how the stream is cut into calls of `add`.
class Checksum {
 public:
  explicit Checksum(std::uint64_t seed = 0);
  void add(const void* data, std::size_t bytes);
  void add(std::string_view text) { add(text.data(), text.size()); }
  template <class T>
  void add(std::span<const T> values) { add(values.data(), values.size_bytes()); }
  std::uint64_t value() const;  ///< of everything added so far

 private:
  std::array<std::uint64_t, 4> lanes_;
  std::array<unsigned char, 32> rest_;  ///< the last bytes that fill no stripe of 32
  std::uint64_t seed_, total_ = 0;
};

std::uint64_t checksum(const void* data, std::size_t bytes, std::uint64_t seed = 0);
inline std::uint64_t checksum(std::string_view text) { return checksum(text.data(), text.size()); }
std::string checksum_text(std::uint64_t value);  ///< 16 hexadecimal digits

}  // namespace collimate
