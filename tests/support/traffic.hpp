#pragma once
#include <utility>
#include <vector>

#include "collimate/base/exact_sum.hpp"
#include "collimate/engine/engine.hpp"
#include "collimate/engine/schedule.hpp"
#include "collimate/kernels/rows.hpp"

namespace collimate::test {

/// Bytes of tensors that a rank sends, along each axis and among all ranks (the norm).
struct Traffic {
  std::int64_t tensor = 0, data = 0, pipeline = 0, world = 0;
  bool operator==(const Traffic&) const = default;
  Traffic operator-(const Traffic& o) const { return {tensor - o.tensor, data - o.data, pipeline - o.pipeline, world - o.world}; }
};

inline Traffic sent_by(const ProcessGrid& grid) {
  const auto along = [&](Axis axis) { return grid.along(axis).sent_bytes(); };
  return {along(Axis::tensor), along(Axis::data), along(Axis::pipeline), grid.world().sent_bytes()};
}

/// What a rank sends in an optimizer step of a policy without adapters in the exact mode: formulas, in which the code that communicates is
/// not asked. C is the width, R a grain's rows, d the replicas.
class TrafficFormulas {
 public:
  TrafficFormulas(const Engine& engine, RecomputePlan recompute)
      : config_(engine.transformer().config()),
        layout_(engine.transformer().layout()),
        division_(engine.transformer().division()),
        recompute_(recompute),
        blocks_(stage_blocks(config_, Head::policy, division_.stage(), division_.stages())) {}

  /// grains: those of this rank's replica, as for Engine::forward_backward; total: of all replicas.
  Traffic of_step(std::span<const Grain> grains, std::int64_t total) const {
    const std::int64_t limbs = std::ssize(ExactSum().limbs());
    const auto& grid = *division_.grid;
    return {tensor(grains), data(grains, total), pipeline(grains), all_reduced(limbs * 8, 8, grid.world().rank(), grid.world().size())};
  }
  std::int64_t bytes() const { return 4 * layout_.size(); }  ///< Ψ: what a replica's rank holds, padding included
  /// What ZeRO 3 gathers in a step of so many grains: a unit for each use, but where it is one of the last two.
  std::int64_t gathered_bytes(std::size_t grains) const {
    return 4 * gathered(grains, [&](int unit) { return layout_.units()[unit].count; });
  }

 private:
  int positions() const { return config_.positions == Positions::learned ? 1 : 0; }
  int final_chunk() const { return 1 + positions() + static_cast<int>(config_.layers); }
  int ranks(Axis axis) const { return division_.ranks(axis); }
  bool tied_across_stages() const { return config_.tied && division_.stages() > 1 && (division_.first_stage() || division_.last_stage()); }
  std::int64_t own(std::int64_t elements) const {
    return owned_part(elements, division_.rank(Axis::data), ranks(Axis::data)).count;
  }

  Part head_units() const { return layout_.units_of(config_.tied ? 0 : final_chunk() + 1); }
  /// Whether a head goes over its table unit by unit, all rows of a grain at once.
  bool by_units() const { return division_.zero >= 2 && ranks(Axis::data) > 1 && head_units().count > 1; }

  /// Reduced by parts and gathered, 2 (n - 1) / n; few bytes are sent to everybody at once.
  static std::int64_t all_reduced(std::int64_t bytes, std::int64_t width, int rank, int ranks) {
    if (bytes * ranks <= 65536) return bytes * (ranks - 1);
    const std::int64_t mine = part_of(bytes / width, rank, ranks).count * width;
    return bytes - mine + mine * (ranks - 1);
  }
  std::int64_t all_reduced(std::int64_t elements) const {
    return all_reduced(elements * 4, 4, division_.rank(Axis::tensor), ranks(Axis::tensor));
  }

  /// Per block R x C twice forward and twice backward, and key/value weights where shards share heads; R x C of the embedding; for the head
  /// four numbers a row, and their hidden states backward.
  std::int64_t tensor(std::span<const Grain> grains) const {
    const int ranks = this->ranks(Axis::tensor);
    if (ranks == 1) return 0;
    std::int64_t bytes = 0;
    for (const Grain& grain : grains) {
      const std::int64_t hidden = all_reduced(std::ssize(grain.tokens) * config_.width);
      for (std::int64_t i = blocks_.begin; !grain.tokens.empty() && i < blocks_.begin + blocks_.count; ++i) {
        bytes += (recompute_.of(static_cast<int>(i)) == Recompute::full ? 5 : 4) * hidden;
        for (const char* what : {".weight", ".bias"})
          for (const char* which : {".key", ".value"})
            if (const std::string name = "block." + std::to_string(i) + which + what; layout_.has(name))
              if (const Parameter& p = layout_.parameter(name); p.split == Split::none) bytes += all_reduced(p.shape.count());
      }
      if (division_.first_stage()) bytes += hidden;
      if (!division_.last_stage()) continue;
      std::int64_t targets = 0;
      for (const std::int32_t target : grain.targets) targets += target >= 0;
      const std::int64_t most = by_units() ? std::max(targets, kernels::row_block) : kernels::row_block;
      for (; targets > 0; targets -= most) {
        const std::int64_t rows = kernels::padded_rows(std::min(targets, most));
        bytes += rows * 4 * 4 * (ranks - 1) + all_reduced(rows * config_.width);
      }
    }
    return bytes;
  }

  std::int64_t pipeline(std::span<const Grain> grains) const {
    std::int64_t elements = 0;
    const Part table = layout_.units_of(0);
    for (std::int64_t u = table.begin; tied_across_stages() && u < table.begin + table.count; ++u) elements += own(layout_.units()[u].count);
    for (const Grain& grain : grains)
      elements += std::ssize(grain.tokens) * config_.width * (2 - division_.first_stage() - division_.last_stage());
    return 4 * elements;
  }

  std::int64_t data(std::span<const Grain> grains, std::int64_t total) const {
    const int d = ranks(Axis::data), zero = division_.zero;
    if (d == 1) return 0;
    std::int64_t scattered = 0, shares = 0;  // what a rank sends of a whole gradient to its owners; its own shares of the values
    for (int u = 0; u < std::ssize(layout_.units()); ++u) {
      const Unit& unit = layout_.units()[u];
      if (layout_.summed_apart(unit)) scattered += unit.count - own(unit.count);
      if (unit.values == u) shares += own(unit.count);
    }
    const auto sums = zero < 2 ? std::ssize(nodes_of(part_of(total, division_.rank(Axis::data), d)))
                               : std::count_if(grains.begin(), grains.end(), [](const Grain& grain) { return !grain.tokens.empty(); });
    return 4 * (sums * scattered + (d - 1) * (zero == 3 ? gathered(grains.size(), [&](int unit) { return own(layout_.units()[unit].count); }) : shares));
  }

  template <class Size>
  std::int64_t gathered(std::size_t grains, const Size& size) const {
    std::vector<int> uses;
    const auto use = [&](int chunk) {
      const Part units = layout_.units_of(chunk);
      for (std::int64_t u = units.begin; u < units.begin + units.count; ++u) uses.push_back(static_cast<int>(u));
    };
    for (const Action& action : one_forward_one_backward(division_.stage(), division_.stages(), static_cast<int>(grains))) {
      if (!action.forward && division_.last_stage()) {
        for (int sweep = 0; sweep < (by_units() ? 2 : 1); ++sweep) use(config_.tied ? 0 : final_chunk() + 1);
        use(final_chunk());
      }
      for (int chunk = 0; action.forward && division_.first_stage() && chunk <= positions(); ++chunk) use(chunk);
      for (std::int64_t i = 0; i < blocks_.count; ++i)
        use(1 + positions() + static_cast<int>(blocks_.begin + (action.forward ? i : blocks_.count - 1 - i)));
      if (action.forward && division_.last_stage()) use(final_chunk());
    }
    std::int64_t elements = 0;
    for (int last = -1, before = -1; const int unit : uses) {
      if (unit == last) continue;
      if (unit != before) elements += size(unit);
      before = std::exchange(last, unit);
    }
    return elements;
  }

  const ModelConfig& config_;
  const ParameterLayout& layout_;
  const Division& division_;
  RecomputePlan recompute_;
  Part blocks_;
};

}  // namespace collimate::test
