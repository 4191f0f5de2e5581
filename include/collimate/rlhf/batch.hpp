#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "collimate/comm/communicator.hpp"
#include "collimate/data/packing.hpp"
#include "collimate/engine/engine.hpp"

namespace collimate::rlhf {

/// A prompt with its response, as it enters a model.
struct Sequence {
  std::int64_t id = 0;                                                ///< global number of the sample
  std::vector<std::int32_t> tokens;                                   ///< prompt, then response
  std::int64_t prompt = 0;                                            ///< tokens of the prompt; 0: every token but the first is learned
  std::int64_t learned() const;                                       ///< tokens with a log-probability: the response's
  std::int64_t first_row() const { return prompt ? prompt - 1 : 0; }  ///< the row that predicts the first learned token
};

/// A global batch cut into grains, and this rank's run of them. Every rank makes the same batch.
class Batch {
 public:
  /// groups: how many consecutive sequences each prompt group has, which stay in one grain; empty: each sequence alone.
  Batch(std::vector<Sequence> sequences, std::int64_t grain_tokens, const Communicator& data, std::span<const std::int64_t> groups = {});

  const std::vector<Sequence>& sequences() const { return sequences_; }
  std::int64_t grains() const { return static_cast<std::int64_t>(grains_.size()); }
  std::int64_t first() const { return mine_.begin; }                                          ///< this rank's first grain
  std::int64_t last() const { return mine_.begin + mine_.count; }                             ///< one past its last
  std::span<const std::int64_t> members(std::int64_t grain) const { return grains_[grain]; }  ///< indices of its sequences
  PackedGrain pack(std::int64_t grain) const;
  std::int64_t tokens() const;  ///< of all sequences
  std::vector<std::int64_t> learned_lengths() const;

 private:
  std::vector<Sequence> sequences_;
  std::vector<std::vector<std::int64_t>> grains_;
  Part mine_;
};

/// The engine's view of a packed grain.
Grain view_of(const PackedGrain& grain);

/// Computes `each(grain)` (plain data) for this rank's grains and returns the results of all grains in grain order, on every rank. Where it
/// throws on one rank, all throw.
template <class Each>
auto over_grains(const Batch& batch, Communicator& data, const Each& each) {
  std::vector<std::invoke_result_t<Each, std::int64_t>> mine, all;
  agree_on(data, [&] {
    for (std::int64_t g = batch.first(); g < batch.last(); ++g) mine.push_back(each(g));
  });
  for (const auto& rank : gather_all(data, mine)) all.insert(all.end(), rank.begin(), rank.end());
  return all;
}

/// A number for every learned token of the batch, in sequence order, on every rank: `rows(grain, out)` fills a value for each row of a
/// grain. Where it throws on one rank, all throw.
std::vector<float> per_token(const Batch& batch, Communicator& data, const std::function<void(const Grain&, std::span<float>)>& rows);
/// A number for every sequence: the value of its last row.
std::vector<float> per_sequence(const Batch& batch, Communicator& data, const std::function<void(const Grain&, std::span<float>)>& rows);

}  // namespace collimate::rlhf
