#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace collimate {

/// Cuts a global batch into grains (numerics contract R1): whole samples in canonical order, each grain at most grain_tokens
/// tokens (next-fit). lengths[i] is the tokens of sample i, or of a whole prompt group. Ranks play no part.
/// Throws, naming the sample by `ids` (or its index), where one alone exceeds a grain.
std::vector<std::vector<std::int64_t>> pack(std::span<const std::int64_t> lengths, std::int64_t grain_tokens,
                                            std::span<const std::int64_t> ids = {});

/// The grains [G*r/d, G*(r+1)/d) that rank r of d computes: first and one past the last. Shares differ by at most one.
std::pair<std::int64_t, std::int64_t> contiguous_share(std::int64_t grains, std::int64_t rank, std::int64_t ranks);

/// Rows of a grain of n tokens: the last block of 256 rows is filled up to at least 16 (R1).
constexpr std::int64_t padded_rows(std::int64_t n) {
  const std::int64_t rest = n % 256;
  return rest > 0 && rest < 16 ? n - rest + 16 : n;
}

/// One sample as it enters a grain.
struct PackedSample {
  std::int64_t id = 0;                   ///< global sample id: keys random numbers
  std::span<const std::int32_t> tokens;
  std::span<const std::uint8_t> mask;    ///< 1 where the token is to be learned; as long as tokens
};

/// The rows of one grain: whole samples back to back, then padding. R = padded_rows(tokens).
struct PackedGrain {
  std::vector<std::int32_t> tokens;     ///< [R], -1 in padding
  std::vector<std::int32_t> targets;    ///< [R], the sample's next token where it is to be learned, else -1
  std::vector<std::int32_t> positions;  ///< [R], from 0 in each sample, -1 in padding
  std::vector<std::int32_t> offsets;    ///< [S+1], sample s is rows [offsets[s], offsets[s+1]); padding lies behind
  std::vector<float> mask;              ///< [R], 1 where targets has a token
  std::vector<std::int64_t> samples;    ///< [R], global sample id of the row, -1 in padding
  std::vector<std::int64_t> ids;        ///< [S], global sample ids
  std::int64_t rows() const { return static_cast<std::int64_t>(tokens.size()); }
  std::int64_t target_count() const;    ///< rows that are learned
};
PackedGrain pack_grain(std::span<const PackedSample> samples);

}  // namespace collimate
