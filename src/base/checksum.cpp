#include "collimate/base/checksum.hpp"

#include <fmt/format.h>

#include <bit>
#include <cstring>

namespace collimate {
namespace {

// The five primes of XXH64.
constexpr std::uint64_t prime1 = 0x9E3779B185EBCA87, prime2 = 0xC2B2AE3D27D4EB4F, prime3 = 0x165667B19E3779F9,
                        prime4 = 0x85EBCA77C2B2AE63, prime5 = 0x27D4EB2F165667C5;
constexpr std::size_t stripe = 32;

template <class Word>
std::uint64_t word_at(const unsigned char* p) {
  Word word;
  std::memcpy(&word, p, sizeof word);
  return word;
}

std::uint64_t round(std::uint64_t lane, std::uint64_t word) { return std::rotl(lane + word * prime2, 31) * prime1; }

void consume(std::array<std::uint64_t, 4>& lanes, const unsigned char* p) {
  for (int i = 0; i < 4; ++i) lanes[i] = round(lanes[i], word_at<std::uint64_t>(p + 8 * i));
}

}  // namespace

Checksum::Checksum(std::uint64_t seed) : lanes_{seed + prime1 + prime2, seed + prime2, seed, seed - prime1}, rest_{}, seed_(seed) {}

void Checksum::add(const void* data, std::size_t bytes) {
  if (bytes == 0) return;
  const auto* p = static_cast<const unsigned char*>(data);
  const std::size_t held = total_ % stripe;
  total_ += bytes;
  if (held + bytes < stripe) {
    std::memcpy(rest_.data() + held, p, bytes);
    return;
  }
  if (held) {
    std::memcpy(rest_.data() + held, p, stripe - held);
    consume(lanes_, rest_.data());
    p += stripe - held;
    bytes -= stripe - held;
  }
  for (; bytes >= stripe; p += stripe, bytes -= stripe) consume(lanes_, p);
  std::memcpy(rest_.data(), p, bytes);
}

std::uint64_t Checksum::value() const {
  std::uint64_t h = seed_ + prime5;
  if (total_ >= stripe) {
    h = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) + std::rotl(lanes_[3], 18);
    for (const std::uint64_t lane : lanes_) h = (h ^ round(0, lane)) * prime1 + prime4;
  }
  h += total_;
  const unsigned char* p = rest_.data();
  std::size_t bytes = total_ % stripe;
  for (; bytes >= 8; p += 8, bytes -= 8) h = std::rotl(h ^ round(0, word_at<std::uint64_t>(p)), 27) * prime1 + prime4;
  for (; bytes >= 4; p += 4, bytes -= 4) h = std::rotl(h ^ word_at<std::uint32_t>(p) * prime1, 23) * prime2 + prime3;
  for (; bytes > 0; ++p, --bytes) h = std::rotl(h ^ *p * prime5, 11) * prime1;
  h = (h ^ h >> 33) * prime2;
  h = (h ^ h >> 29) * prime3;
  return h ^ h >> 32;
}

std::uint64_t checksum(const void* data, std::size_t bytes, std::uint64_t seed) {
  Checksum sum(seed);
  sum.add(data, bytes);
  return sum.value();
}

std::string checksum_text(std::uint64_t value) { return fmt::format("{:016x}", value); }

}  // namespace collimate
