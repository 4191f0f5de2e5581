#include "collimate/data/packing.hpp"

#include "collimate/base/error.hpp"

namespace collimate {

std::vector<std::vector<std::int64_t>> pack(std::span<const std::int64_t> lengths, std::int64_t grain_tokens,
                                            std::span<const std::int64_t> ids) {
  ensure(ids.empty() || ids.size() == lengths.size(), "{} ids for {} samples", ids.size(), lengths.size());
  std::vector<std::vector<std::int64_t>> grains;
  std::int64_t filled = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    require(lengths[i] <= grain_tokens,
            "sample {} has {} tokens, more than the {} of a grain; raise batch.grain_tokens or shorten the samples",
            ids.empty() ? static_cast<std::int64_t>(i) : ids[i], lengths[i], grain_tokens);
    if (grains.empty() || filled + lengths[i] > grain_tokens) {
      grains.emplace_back();
      filled = 0;
    }
    grains.back().push_back(static_cast<std::int64_t>(i));
    filled += lengths[i];
  }
  return grains;
}

PackedGrain pack_grain(std::span<const PackedSample> samples, std::int64_t rows) {
  PackedGrain grain;
  std::int64_t total = 0;
  for (const PackedSample& sample : samples) {
    ensure(sample.mask.size() == sample.tokens.size(), "sample {} has {} tokens and {} mask entries", sample.id, sample.tokens.size(),
           sample.mask.size());
    total += static_cast<std::int64_t>(sample.tokens.size());
  }
  ensure(total <= rows, "{} tokens do not fit into {} rows", total, rows);
  grain.tokens.assign(rows, -1);
  grain.targets.assign(rows, -1);
  grain.positions.assign(rows, -1);
  grain.samples.assign(rows, -1);
  grain.offsets.push_back(0);
  std::size_t row = 0;
  for (const PackedSample& sample : samples) {
    for (std::size_t t = 0; t < sample.tokens.size(); ++t, ++row) {
      grain.tokens[row] = sample.tokens[t];
      grain.positions[row] = static_cast<std::int32_t>(t);
      grain.samples[row] = sample.id;
      if (t + 1 < sample.tokens.size() && sample.mask[t + 1]) grain.targets[row] = sample.tokens[t + 1];
    }
    grain.offsets.push_back(static_cast<std::int32_t>(row));
    grain.ids.push_back(sample.id);
  }
  return grain;
}

}  // namespace collimate
