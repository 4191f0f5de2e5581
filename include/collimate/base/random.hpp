#pragma once
#include <array>
#include <cstdint>

namespace collimate {

/// What a random number is for: a part of its key, so that no two uses share a number.
enum class Purpose : std::uint32_t {
  initialise = 1,   ///< (parameter, element)
  dropout = 2,      ///< (sample, position, step)
  sampling = 3,     ///< (sample, position, iteration)
  data_order = 4,   ///< (epoch, index)
  minibatch = 5,    ///< (iteration, epoch)
  evaluation = 6,   ///< (prompt, sample)
  example_data = 7, ///< the quickstart generator
  normalise = 8,    ///< samples that set the reward model's mean and standard deviation
};

/// Four 32-bit random words of Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

/// Stateless random numbers (numerics contract R4): a value depends on the key alone, never on ranks or call order.
class RandomKey {
 public:
  RandomKey(std::uint64_t seed, Purpose purpose) : seed_(seed), purpose_(purpose) {}
  /// Four words for (a, b, c); a below 2^48, b and c below 2^32. Bits 32-47 of a enter the key.
  std::array<std::uint32_t, 4> words(std::uint64_t a, std::uint32_t b = 0, std::uint32_t c = 0) const;
  double uniform(std::uint64_t a, std::uint32_t b = 0, std::uint32_t c = 0) const;  ///< in [0, 1), 53 bits
  double normal(std::uint64_t a, std::uint32_t b = 0, std::uint32_t c = 0) const;   ///< Box-Muller, fp64
  std::uint64_t below(std::uint64_t n, std::uint64_t a, std::uint32_t b = 0, std::uint32_t c = 0) const;  ///< in [0, n)
  std::uint64_t seed() const { return seed_; }
  Purpose purpose() const { return purpose_; }

 private:
  std::uint64_t seed_;
  Purpose purpose_;
};

}  // namespace collimate
