#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "collimate/base/exact_sum.hpp"
#include "collimate/collectives/shares.hpp"
#include "collimate/collectives/sharded_sum.hpp"
#include "collimate/device/memory_plan.hpp"
#include "collimate/params/division.hpp"
#include "collimate/params/itinerary.hpp"
#include "collimate/params/lease.hpp"
#include "collimate/params/residence.hpp"

namespace collimate {

/// The flat ranges of a model.
enum class Kind { value, first_moment, second_moment, gradient };
std::string name_of(Kind kind);

/// What of a model a rank is asked for: all that it holds, or what it counts, so that over all ranks each element comes once.
enum class Extent { held, counted };

/// What a store is for.
struct StoreUse {
  std::int64_t most_grains = 0;  ///< of an optimizer step, over all replicas; 0: the model does not learn
  std::int64_t group = 1;        ///< most grains whose gradients of a unit are reduced one after the other; a power of two
  DType values = DType::f32;     ///< in which values rest and travel: f32, or bf16
  bool holds_rollouts = false;   ///< sharded values will be asked for whole, once per rollout
  Windows* windows = nullptr;    ///< shared with stores that are never in use together; null: its own
};

/// The values of a model's parameters and, where it learns, its gradients and optimizer moments: flat ranges in chunk order. What a
/// rank holds of them follows from its Division: its shards of the layers of its stage, and of these everything or (ZeRO) its share.
/// Values are fp32 or bf16, all else is fp32. Where bf16 values learn, the optimizer steps fp32 masters, of which they are the nearest bf16
/// numbers: what is read, written, hashed and saved of Kind::value are the masters.
class ParameterStore {
 public:
  ParameterStore(ParameterStore&&) = delete;  // windows know it
  ParameterStore(std::string model, ParameterLayout layout, MemoryPlan& plan, const Division& division = {}, const StoreUse& use = {});

  const ParameterLayout& layout() const { return layout_; }
  const Division& division() const { return division_; }
  const std::string& model() const { return model_; }
  bool learns() const { return use_.most_grains > 0; }
  DType values_type() const { return use_.values; }  ///< in which values rest
  /// Whether each fetch brings values from where they rest: then one thread fetches, and passes are announced by the itinerary.
  bool streams() const { return !windows_.empty() && !holds_all_; }
  /// Whether each fetch is a message of all replicas.
  bool gathers() const { return division_.placement().values && !holds_all_; }

  /// Whether gradients leave their place on the device as soon as they are complete: then one unit after the other is written.
  bool gradients_leave() const { return gradients_leave_; }

  /// The values of a unit of the layout; those of a tie's are the chunk's. Sharded values are gathered; where an
  /// itinerary was given this must be its next fetch, and those after it are brought meanwhile. Collective along the data axis where
  /// values are sharded: all replicas fetch the same units in the same order, also without a grain.
  Lease fetch(int unit);
  Lease at_rest(int unit) const;    ///< the values where they rest, in host memory, whole
  /// The fetches to come; empty: they are not known. For passes that begin now.
  Itinerary& itinerary() { return itinerary_; }
  /// Gathers sharded values whole for a rollout, where the store was planned for it; fetch() then needs nobody, until release_all().
  void hold_all();
  void release_all() { holds_all_ = false; }

  /// One optimizer step over `grains` grains: begin_step; for each unit, for each grain of this rank (division().grains) in order: gradient, the
  /// backward, and reduce after the last write; finish_step. Grains may come in groups of at most StoreUse::group, one group for all units before
  /// the next. Collective where gradients are sharded: there also ranks reduce that have no grain in a micro-step in which others do.
  void begin_step(std::int64_t grains);
  /// Zeros for the gradient of a unit, of the next grain; absent in a model that does not learn. at_rest: in host memory where the sum rests, for
  /// who adds few rows of it.
  Lease gradient(int unit, bool at_rest = false);
  void reduce(int unit);
  /// Sums the gradients of the step's grains over all ranks in the fixed order. Collective.
  void finish_step();
  /// Sum of squares of the step's gradient, each parameter counted once; equal on every rank and every division. Collective; where one rank
  /// cannot form its part, all throw its AgreedError.
  double gradient_squares() const;

  /// What the optimizer updates of a unit, where the state rests: elements [begin, begin + count) of the layout as held.
  struct Piece {
    std::int64_t begin = 0, count = 0;
    Tensor value, gradient, first_moment, second_moment;
  };
  using StepPiece = std::function<void(const Piece&)>;
  /// The optimizer's step, after finish_step: calls `step` for all that this rank updates, then brings the new values to where they rest, and to the
  /// other ranks (ZeRO 1 and 2). Units whose state rests on the host are pending: each is stepped before it is fetched next, unless ranks must
  /// exchange its values or the division says at once. Collective.
  void step(StepPiece step);
  /// Steps what is pending: for whoever looks at values or moments, but by a fetch.
  void settle() const;
  /// Steps of units so far that were pending: done at a fetch, or settled.
  struct PendingSteps {
    std::int64_t at_fetch = 0, settled = 0;
  };
  const PendingSteps& pending_steps() const { return pending_steps_; }

  /// After numbers were written, where values are rounded masters: rounds them; before the next fetch. Collective.
  void round_values();
  /// Numbers that were written into bf16 values and lost something.
  std::int64_t rounded() const { return rounded_; }

  /// Values change, or others need the windows: what they hold is brought anew. No lease may be open.
  void forget_windows() const;

  /// What rests here of a kind, unit by unit: all of each, or the share; gradients after finish_step.
  std::vector<Tensor> units(Kind kind) const;

  /// Bytes that come from the host where these units are fetched, each once.
  double fetched_bytes(std::span<const int> units) const;
  /// Bytes of the gradients of these units that go to the host in an optimizer step, and of stepped masters that come from there to values on the device.
  double spilled_bytes(std::span<const int> units, std::int64_t groups, std::int64_t grains) const;

  /// Zeros what lasts: values with the padding between them, and moments. Once the plan is committed.
  void clear();
  /// Fills the values by their Initial: element i of a parameter depends on (seed, its name, i) only. wanted: which parameters; none: all.
  /// factor: of what is random.
  void initialise(std::uint64_t seed, const std::function<bool(const Parameter&)>& wanted = {},
                  const std::function<double(const Parameter&)>& factor = {});
  /// Visits what this rank has of elements [begin, begin + count) of a flattened global parameter, as runs of memory. All replicas must
  /// do so between the same fetches.
  using Run = std::function<void(std::int64_t element, Tensor run)>;
  void for_each_run(Kind kind, const Parameter& parameter, std::int64_t begin, std::int64_t count, Extent extent, const Run& run) const;
  /// Copies what is held of elements [begin, begin + size) of a flattened global parameter out of, or into, a range.
  void read(Kind kind, const std::string& name, std::int64_t begin, std::span<float> elements) const;
  void write(Kind kind, const std::string& name, std::int64_t begin, std::span<const float> elements);
  /// Numbers of a run on the host, widened where they are bf16.
  void get(std::span<float> numbers, const Tensor& run) const;
  /// Changes the values that are held of a parameter: calls change(element, values) for pieces of them in host memory, in order.
  using Change = std::function<void(std::int64_t element, std::span<float> values)>;
  void change(const Parameter& parameter, const Change& change);
  Staging& staging() const { return plan_->staging(); }  ///< for runs

  /// A hash of each parameter (in the layout's order) of a kind, whatever the division; replicas are compared first: where a rank holds
  /// other bits than another that should hold the same, an error (exit 1) names parameter and rank, and `when`, such as "sft step 3".
  /// Collective.
  std::vector<std::uint64_t> hashes(Kind kind, const std::string& when = "") const;

 private:
  std::int64_t owned_size() const { return owned_.empty() ? 0 : owned_.back(); }
  const Unit& unit(int index) const { return layout_.units()[index]; }
  int chunk_units() const { return static_cast<int>(owned_.size()) - 1; }  ///< those of chunks; behind them come those of ties
  const std::string& name_of_unit(int index) const { return layout_.chunks()[unit(index).chunk].name; }
  Part owned_of(int unit) const;
  Part stepped(int unit) const;                ///< what this rank updates
  Tensor at(Kind kind, int unit) const;        ///< what rests here: all of the unit, or the share; a gradient after finish_step
  Tensor part(Kind kind, int unit, const Part& part) const;
  Part counted(int unit) const;
  bool sharded(Kind kind) const;
  Window& bring(int unit);
  Window* window_of(int unit);
  Window* free_window();
  bool rests_whole(int unit) const { return !division_.placement().values && !values_.on_host(unit); }  ///< on the device
  void bring_next();
  void start_gather(Window& window, int unit);
  Tensor place_of(const Window& window, std::int64_t elements) const { return shared_->values(static_cast<int>(&window - windows_.data()), elements, use_.values); }
  Tensor gradient_room(int unit, int buffer, bool host) const;
  bool state_on_host(int unit) const { return state_on_host_[this->unit(unit).values]; }
  bool leaves(int unit) const { return division_.placement().gradients || state_on_host(unit); }  ///< its gradient
  Stream& stream_of(bool host) const { return host ? plan_->device().host().stream() : plan_->device().stream(); }
  Tensor scalars(const Tensor& beside, std::int64_t count, DType dtype) const;
  void reserve_sums(bool host);
  bool spreads() const { return division_.placement().moments && !division_.placement().values; }  ///< values, to the other replicas, after a step
  bool pending(int unit) const { return step_of_[unit] < steps_; }
  void step_unit(int unit) const;
  void step_before_use(int unit) const;
  void values_to_masters() const;
  void master_to_value(int unit) const;
  bool rounds() const { return learns() && use_.values != DType::f32; }  ///< values are rounded masters
  Tensor value_part(int unit, const Part& part) const;
  void put(const Tensor& run, std::span<const float> numbers);
  Tensor spill(int index);
  void exchange_ties();
  Part summed(int unit) const;
  void gather_units(Kind kind) const;
  ExactSum own_squares() const;
  std::vector<std::uint64_t> held_hashes(Kind kind, Extent extent) const;
  void compare_replicas(Kind kind, const std::string& when) const;
  std::string disagreement(Kind kind, const std::vector<std::uint64_t>& mine, Axis axis,
                           const std::function<bool(const Parameter&, int place)>& holds) const;

  std::string model_;
  ParameterLayout layout_;
  MemoryPlan* plan_;
  Division division_;
  StoreUse use_;
  std::vector<std::int64_t> owned_;  // places of the shares of the chunks' units, one after the other, and their end
  Residence values_, masters_, first_moments_, second_moments_;
  std::vector<bool> state_on_host_;  // of the chunks' units
  bool has_masters_ = false;
  /// Of the units whose state rests on one tier: whole gradients (ZeRO 0 and 1) or shares of them (ZeRO 2 and 3).
  struct Sums {
    std::unique_ptr<OrderedSum> run;
    std::unique_ptr<ShardedSum> shared;
    std::vector<int> units;  // of its ranges
    Tensor result;           // of the step
  };
  Sums sums_[2];                     // on the device, on the host
  std::vector<std::int64_t> place_;  // of each unit: its range in its sum
  Slot scalars_, host_scalars_, host_room_, whole_, rounded_room_;
  std::int64_t host_buffers_ = 0;  // of host_room_
  std::unique_ptr<Windows> own_windows_;
  Windows* shared_;  // these, or those of several stores
  Slot tie_room_[2];
  static constexpr std::int64_t most_tie_room_ = 1 << 20;  // elements of the other place's gradient, exchanged at a time
  mutable std::vector<Window> windows_;  // leases point to them: their number is fixed
  Itinerary itinerary_;
  std::vector<int> all_units_;  // the itinerary of hold_all
  bool holds_all_ = false, gradients_leave_ = false;
  bool values_stale_ = false;  // masters were written
  std::int64_t rounded_ = 0;
  mutable bool masters_stale_ = true;  // values were changed but by a step
  StepPiece step_;                              // the last one
  std::int64_t steps_ = 0;
  mutable std::vector<std::int64_t> step_of_;  // of the chunks' units: to which of the steps their values belong
  mutable PendingSteps pending_steps_;
  std::int64_t grains_ = 0;
  bool step_open_ = false;
  std::vector<std::int64_t> reduced_;  // micro-steps of each unit, where gradients are sharded
  int in_backward_ = -1;               // the unit whose sharded gradient is open
  bool written_at_rest_ = false;       // it
};

/// One number of all hashes: the state hash.
std::uint64_t combine(const ParameterLayout& layout, const std::vector<std::uint64_t>& hashes);

}  // namespace collimate
