#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace collimate {

/// Cuts a global batch into grains (numerics contract R1): whole samples in canonical order, each grain at most grain_tokens
/// tokens (next-fit). lengths[i] is the tokens of sample i, or of a whole prompt group. Ranks play no part.
/// Throws, naming the sample by `ids` (or its index), where one alone exceeds a grain.
std::vector<std::vector<std::int64_t>> pack(std::span<const std::int64_t> lengths, std::int64_t grain_tokens,
                                            std::span<const std::int64_t> ids = {});

/// One sample as it enters a grain.
struct PackedSample {
  std::int64_t id = 0;                   ///< global sample id: keys random numbers
  std::span<const std::int32_t> tokens;
  std::span<const std::uint8_t> mask;    ///< 1 where the token is to be learned; as long as tokens
};

/// The R rows of one grain: whole samples back to back, then padding.
struct PackedGrain {
  std::vector<std::int32_t> tokens;     ///< [R], -1 in padding
  std::vector<std::int32_t> targets;    ///< [R], the sample's next token where it is to be learned, else -1
  std::vector<std::int32_t> positions;  ///< [R], from 0 in each sample, -1 in padding
  std::vector<std::int32_t> offsets;    ///< [S+1], sample s is rows [offsets[s], offsets[s+1]); padding lies behind
  std::vector<std::int64_t> samples;    ///< [R], global sample id of the row, -1 in padding
  std::vector<std::int64_t> ids;        ///< [S], global sample ids
  std::int64_t rows() const { return static_cast<std::int64_t>(tokens.size()); }
};
/// rows: R, as the kernels want it, at least as many as the samples have tokens.
PackedGrain pack_grain(std::span<const PackedSample> samples, std::int64_t rows);

}  // namespace collimate
