#pragma once
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "collimate/data/packing.hpp"
#include "collimate/engine/engine.hpp"

namespace collimate::rlhf {

/// A prompt with its response, as it enters a model.
struct Sequence {
  std::int64_t id = 0;                                                ///< global number of the sample
  std::vector<std::int32_t> tokens;                                   ///< prompt, then response
  std::int64_t prompt = 0;                                            ///< tokens of the prompt; 0: every token but the first is learned
  std::vector<std::uint8_t> mask = {};                                ///< 1 for each token that is learned; empty: the whole response is
  std::int64_t learned() const;                                       ///< tokens with a log-probability: the response's, or the mask's
  std::vector<float> learned_of(std::span<const float> rows) const;   ///< of a number for every row those that predict learned tokens
  std::int64_t first_row() const { return prompt ? prompt - 1 : 0; }  ///< the row that predicts the first learned token
};

/// A global batch cut into grains, and those of them that this rank's replica computes. Every rank makes the same batch.
class Batch {
 public:
  /// groups: how many consecutive sequences each prompt group has, which stay in one grain; empty: each sequence alone.
  Batch(std::vector<Sequence> sequences, std::int64_t grain_tokens, const Division& division, std::span<const std::int64_t> groups = {});

  const std::vector<Sequence>& sequences() const { return sequences_; }
  std::int64_t grains() const { return static_cast<std::int64_t>(grains_.size()); }
  const std::vector<std::int64_t>& mine() const { return mine_; }  ///< this replica's grains in order; -1: a micro-step without one
  std::span<const std::int64_t> members(std::int64_t grain) const { return grains_[grain]; }  ///< indices of its sequences
  PackedGrain pack(std::int64_t grain) const;
  std::vector<PackedGrain> pack_mine() const;  ///< an empty one for each -1
  /// Zeroes the rows of the sequences from `count` on in a gradient that begins with row `first` of a grain.
  void leave_out(std::int64_t count, std::int64_t grain, const PackedGrain& packed, std::int64_t first, std::span<float> gradient) const;
  std::int64_t tokens() const;  ///< of all sequences
  std::vector<std::int64_t> learned_lengths() const;

  /// What the replicas found for their grains (mine[i] for mine()[i]), for all grains in their order, on every rank. Taken from the ranks
  /// that speak for their replicas.
  template <class T>
    requires std::is_trivially_copyable_v<T>
  std::vector<T> gather(const std::vector<T>& mine) const {
    std::vector<T> all(static_cast<std::size_t>(grains()));
    gather_bytes(std::as_bytes(std::span(mine)), sizeof(T), [&](std::int64_t grain, std::span<const std::byte> bytes) {
      std::memcpy(&all[static_cast<std::size_t>(grain)], bytes.data(), sizeof(T));
    });
    return all;
  }

 private:
  using Put = std::function<void(std::int64_t grain, std::span<const std::byte> bytes)>;
  void gather_bytes(std::span<const std::byte> mine, std::size_t each, const Put& put) const;
  Division division_;
  std::vector<Sequence> sequences_;
  std::vector<std::vector<std::int64_t>> grains_;
  std::vector<std::int64_t> mine_;
};

/// The engine's view of packed grains.
std::vector<Grain> views_of(const std::vector<PackedGrain>& grains);

}  // namespace collimate::rlhf
