#include "collimate/base/random.hpp"

#include <cmath>
#include <numbers>

namespace collimate {

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  constexpr std::uint64_t multiplier0 = 0xD2511F53, multiplier1 = 0xCD9E8D57;
  constexpr std::uint32_t weyl0 = 0x9E3779B9, weyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = multiplier0 * counter[0];
    const std::uint64_t product1 = multiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
    key[0] += weyl0;
    key[1] += weyl1;
  }
  return counter;
}

std::array<std::uint32_t, 4> RandomKey::words(std::uint64_t a, std::uint32_t b, std::uint32_t c) const {
  const std::uint32_t high = static_cast<std::uint32_t>(a >> 32);
  const std::uint32_t tag = static_cast<std::uint32_t>(purpose_) << 16 ^ high;
  return philox4x32({static_cast<std::uint32_t>(a), b, c, tag},
                    {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)});
}

namespace {
double unit(std::uint32_t low, std::uint32_t high) {
  const std::uint64_t bits = (static_cast<std::uint64_t>(high) << 32 | low) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}
}  // namespace

double RandomKey::uniform(std::uint64_t a, std::uint32_t b, std::uint32_t c) const {
  const auto w = words(a, b, c);
  return unit(w[0], w[1]);
}

double RandomKey::normal(std::uint64_t a, std::uint32_t b, std::uint32_t c) const {
  const auto w = words(a, b, c);
  const double radius = std::sqrt(-2.0 * std::log(1.0 - unit(w[0], w[1])));
  return radius * std::cos(2.0 * std::numbers::pi * unit(w[2], w[3]));
}

std::uint64_t RandomKey::below(std::uint64_t n, std::uint64_t a, std::uint32_t b, std::uint32_t c) const {
  const auto w = words(a, b, c);
  const std::uint64_t bits = static_cast<std::uint64_t>(w[1]) << 32 | w[0];
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(bits) * n) >> 64);
}

}  // namespace collimate
