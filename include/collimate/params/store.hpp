#pragma once
#include <memory>
#include <span>
#include <string>

#include "collimate/comm/communicator.hpp"
#include "collimate/device/memory_plan.hpp"
#include "collimate/params/layout.hpp"
#include "collimate/params/ordered_sum.hpp"

namespace collimate {

/// The parameters of one chunk while a layer uses them: values, and the gradient of the grain being computed (empty in a forward-only
/// model).
struct Lease {
  Tensor value;     ///< [chunk size] f32
  Tensor gradient;  ///< [chunk size] f32
  Tensor at(const View& view) const { return value.slice(view.offset, view.count()).reshape(view.shape); }
  Tensor gradient_at(const View& view) const { return gradient.slice(view.offset, view.count()).reshape(view.shape); }
};

/// The values of a model's parameters and, where it learns, its gradients and optimizer moments: flat fp32 ranges in chunk order.
class ParameterStore {
 public:
  /// Reserves its memory. most_grains: the most grains of an optimizer step over all ranks; 0 makes a model that does not learn.
  ParameterStore(std::string model, ParameterLayout layout, MemoryPlan& plan, std::int64_t most_grains, int data_ranks);

  const ParameterLayout& layout() const { return layout_; }
  const std::string& model() const { return model_; }
  bool learns() const { return grains_ != nullptr; }

  /// A chunk, or the second place of a tied one (its values are the chunk's, its gradient is its own).
  Lease fetch(int chunk_or_tie) const;

  /// One optimizer step: begin_step, then for each grain of this rank open_grain, backward, close_grain; then finish_step.
  void begin_step(std::int64_t first_grain);
  void open_grain();
  void close_grain();
  /// Sums the gradients of the step's grains over all ranks in the fixed order; every rank then holds the sum. Collective.
  void finish_step(Communicator& data, std::int64_t grains);

  Tensor value() const { return plan_->at(value_, {layout_.size()}); }
  Tensor gradient() const { return sum_of_step_.slice(0, layout_.size()); }  ///< [size] f32, after finish_step
  Tensor first_moment() const { return plan_->at(first_moment_, {layout_.size()}); }
  Tensor second_moment() const { return plan_->at(second_moment_, {layout_.size()}); }

  /// Fills the values by their Initial: element i of a parameter depends on (seed, its name, i) only.
  void initialise(std::uint64_t seed);
  /// Copies elements [begin, begin + size) of a flattened global parameter out of, or into, one of the flat ranges above.
  void read(const Tensor& range, const std::string& name, std::int64_t begin, std::span<float> elements) const;
  void write(const Tensor& range, const std::string& name, std::int64_t begin, std::span<const float> elements) const;

 private:
  std::string model_;
  ParameterLayout layout_;
  MemoryPlan* plan_;
  Slot value_, first_moment_, second_moment_;
  std::unique_ptr<OrderedSum> grains_;
  Tensor open_;         // the gradient of the grain being computed
  Tensor sum_of_step_;  // ties included
};

/// 64-bit hash of a flat range of whole blocks, in block order: equal on every layout, different after one changed bit.
std::uint64_t hash_of(const Tensor& range, Stream& stream, std::uint64_t seed = 0);
/// Sum of squares of a flat range of whole blocks: fp64, in block order.
double squares_of(const Tensor& range, Stream& stream);

}  // namespace collimate
