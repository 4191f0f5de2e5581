#include "collimate/params/store.hpp"

#include <algorithm>
#include <vector>

#include "collimate/base/random.hpp"
#include "collimate/collectives/all_reduce.hpp"
#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/optimizer.hpp"

namespace collimate {
namespace {

constexpr std::int64_t piece_elements = 1 << 20;  // changed on the host at a time

std::uint32_t hash_of_name(const std::string& name) {  // FNV-1a
  std::uint32_t hash = 2166136261u;
  for (const unsigned char c : name) hash = (hash ^ c) * 16777619u;
  return hash;
}

}  // namespace

ParameterStore::ParameterStore(std::string model, ParameterLayout layout, MemoryPlan& plan, const Division& division, const StoreUse& use)
    : model_(std::move(model)), layout_(std::move(layout)), plan_(&plan), division_(division), use_(use) {
  const int data = division.ranks(Axis::data), rank = division.rank(Axis::data);
  owned_.push_back(0);
  const int chunk_units = layout_.ties().empty() ? static_cast<int>(layout_.units().size())
                                                 : static_cast<int>(layout_.units_of(static_cast<int>(layout_.chunks().size())).begin);
  for (int u = 0; u < chunk_units; ++u) owned_.push_back(owned_.back() + owned_part(unit(u).count, rank, data).count);
  const Placement& placement = division.placement();
  const Shape all{layout_.size()}, share{owned_size()}, largest{layout_.largest_unit()};
  const auto memory = [](Tier tier) { return tier == Tier::host ? Memory::host : Memory::device; };
  const Tiers tiers = division.tiers;
  const Memory state = memory(tiers.state);
  ensure(!learns() || tiers.values == Tier::device || tiers.state == Tier::host, "{}: values on the host are stepped on the device", model_);
  value_ = plan.reserve(model_ + " values", placement.values ? share : all, DType::f32, Lifetime::always, memory(tiers.values));
  const Shape room{std::max<std::int64_t>(1, learns() ? layout_.largest_unit() / kernels::chunk_block : 0)};
  scalars_ = plan.reserve(model_ + " norm and hash", room, DType::f64);
  if (tiers.values == Tier::host || tiers.state == Tier::host)
    host_scalars_ = plan.reserve(model_ + " norm and hash", room, DType::f64, Lifetime::always, Memory::host);
  if (placement.values || tiers.values == Tier::host) {
    windows_.resize(2);
    windows_slot_ = plan.reserve(model_ + " fetched units", {std::ssize(windows_), layout_.largest_unit()}, DType::f32);
    for (int u = 0; u < chunk_units; ++u)
      if (unit(u).count) all_units_.push_back(u);
    if (use.generates && placement.values) whole_ = plan.reserve(model_ + " values, whole, to generate", all, DType::f32, Lifetime::rollout);
  }
  for (const auto& tie : layout_.ties())
    if (learns() && !tie.apart && layout_.chunks()[tie.chunk].held && division.stages() > 1) {
      tie_room_elements_ = std::min<std::int64_t>(1 << 20, layout_.chunks()[tie.chunk].size);
      tie_room_ = plan.reserve(model_ + " tied gradient", {tie_room_elements_}, DType::f32, Lifetime::update, state);
    }
  if (!learns()) return;
  const Shape stepped = placement.moments ? share : all;
  first_moment_ = plan.reserve(model_ + " first moment", stepped, DType::f32, Lifetime::always, state);
  second_moment_ = plan.reserve(model_ + " second moment", stepped, DType::f32, Lifetime::always, state);
  if (on_host() && tiers.values == Tier::device) master_ = plan.reserve(model_ + " masters", stepped, DType::f32, Lifetime::always, state);
  if (placement.gradients || on_host()) unit_gradient_ = plan.reserve(model_ + " gradient of a unit", largest, DType::f32, Lifetime::update);
  if (placement.gradients && on_host()) spilled_ = plan.reserve(model_ + " gradient of a unit", largest, DType::f32, Lifetime::update, state);
  if (placement.gradients) {
    std::vector<ShardedSum::Range> ranges;
    for (const Unit& unit : layout_.units()) ranges.push_back({layout_.summed_apart(unit) ? unit.count : 0});
    shared_sum_ = std::make_unique<ShardedSum>(plan, model_ + " gradient", std::move(ranges), use.most_grains, rank, data, division.ordered, state);
    return;
  }
  std::vector<Part> ranges;
  for (const Unit& unit : layout_.units())
    if (layout_.summed_apart(unit)) ranges.push_back({unit.gradient, unit.count});
  run_sum_ = std::make_unique<OrderedSum>(plan, model_ + " gradient", layout_.gradient_size(), use.most_grains, data, std::move(ranges),
                                          division.ordered, state);
}

Part ParameterStore::owned_of(int index) const {
  return owned_part(unit(index).count, division_.rank(Axis::data), division_.ranks(Axis::data));
}

bool ParameterStore::sharded(Kind kind) const {
  const Placement& placement = division_.placement();
  return kind == Kind::value ? placement.values : kind == Kind::gradient ? placement.gradients : placement.moments;
}

Tensor ParameterStore::all(Kind kind) const {
  if (kind == Kind::gradient) return sum_of_step_.slice(0, sharded(kind) ? owned_size() : layout_.size());
  const Slot slot = kind == Kind::value ? value_ : kind == Kind::first_moment ? first_moment_ : second_moment_;
  return plan_->at(slot, {sharded(kind) ? owned_size() : layout_.size()});
}

Lease ParameterStore::fetch(int index) {
  const Tensor gradient = fetch_gradient(index).gradient;
  Lease lease = fetch_values(index);
  lease.gradient = gradient;
  return lease;
}

Lease ParameterStore::fetch_values(int index) {
  const Unit& unit = this->unit(index);
  const std::int64_t offset = layout_.chunks()[unit.chunk].offset + unit.begin;
  if (!itinerary_.done()) {
    ensure(itinerary_.ahead(0) == index, "{}: unit {} is fetched where {} was to come", model_, index, itinerary_.ahead(0));
    itinerary_.advance();
  }
  if (windows_.empty()) return {value().slice(offset, unit.count), {}, unit.begin};
  if (holds_all_) return {plan_->at(whole_, {layout_.size()}).slice(offset, unit.count), {}, unit.begin};
  Window& window = bring(unit.values);
  Lease lease(place_of(window).slice(0, unit.count), {}, unit.begin, &window);
  if (const int next = itinerary_.ahead(0); next >= 0 && !window_of(this->unit(next).values))
    if (Window* const room = free_window()) start_gather(*room, this->unit(next).values);
  return lease;
}

Lease ParameterStore::fetch_gradient(int index) {
  const Unit& unit = this->unit(index);
  ensure(layout_.chunks()[unit.chunk].held, "{}: the chunk {} lies on another stage", model_, name_of_unit(index));
  Lease lease({}, {}, unit.begin);
  if (!grain_open_ || !grain_present_) return lease;
  if (!unit_gradient_) {
    lease.gradient = open_.slice(unit.gradient, unit.count);
    return lease;
  }
  lease.gradient = plan_->at(unit_gradient_, {unit.count});
  if (in_backward_ != index) {
    ensure(in_backward_ < 0, "{}: the gradient of unit {} of {} is wanted before another one was reduced", model_, index, name_of_unit(index));
    in_backward_ = index;
    lease.gradient.zero(plan_->device().stream());
  }
  return lease;
}

Lease ParameterStore::at_rest(int index) const {
  ensure(division_.tiers.values == Tier::host && !sharded(Kind::value), "{}: values do not rest on the host whole", model_);
  return {value().slice(unit(index).gradient, unit(index).count), {}, unit(index).begin};
}

Lease ParameterStore::gradient_at_rest(int index) {
  Lease lease({}, {}, unit(index).begin);
  if (!grain_open_ || !grain_present_) return lease;
  ensure(on_host() && in_backward_ < 0, "{}: the gradient of unit {} of {} is not wanted on the host", model_, index, name_of_unit(index));
  in_backward_ = index;
  written_at_rest_ = true;
  lease.gradient = open_gradient(index);
  if (!run_sum_) lease.gradient.zero(state_stream());
  return lease;
}

void ParameterStore::begin_step(std::int64_t grains) {
  ensure(learns(), "model {} was not planned to learn", model_);
  grains_ = grains;
  micro_step_ = 0;
  if (run_sum_)
    run_sum_->begin(part_of(grains, division_.rank(Axis::data), division_.ranks(Axis::data)).begin);
  else
    shared_sum_->begin();
}

void ParameterStore::open_grain(bool present) {
  ensure(!grain_open_, "{}: a grain is open already", model_);
  grain_open_ = true;
  grain_present_ = present;
  if (run_sum_) {
    open_ = run_sum_->open(state_stream());
    return;
  }
  const int ranks = division_.ranks(Axis::data);
  grains_present_ = static_cast<int>(std::clamp<std::int64_t>(grains_ - micro_step_ * ranks, 0, ranks));
}

void ParameterStore::close_grain() {
  if (run_sum_) run_sum_->push(state_stream());
  open_ = {};
  grain_open_ = false;
  ++micro_step_;
}

double ParameterStore::gradient_squares() const {
  ExactSum sum;
  division_.agree([&] { sum = own_squares(); });
  if (division_.grid) all_reduce(division_.grid->world(), sum.limbs(), plan_->device());
  return sum.value();
}

/// Of what this rank counts.
ExactSum ParameterStore::own_squares() const {
  ExactSum sum;
  std::vector<double> blocks;
  Stream& stream = state_stream();
  const Tensor gradient = all(Kind::gradient);
  for (int u = 0; u < chunk_units(); ++u)
    if (const Part share = counted(u); share.count > 0) {
      const std::int64_t begin = sharded(Kind::gradient) ? owned_[u] + share.begin - owned_of(u).begin : unit(u).gradient + share.begin;
      blocks.resize(share.count / kernels::chunk_block);
      const Tensor squares = scalars(gradient, std::ssize(blocks), DType::f64);
      kernels::block_squares(squares, gradient.slice(begin, share.count), stream);
      plan_->staging().get(blocks, squares, stream);
      for (const double block : blocks) sum.add(block);
    }
  return sum;
}

/// The part of a unit that this rank counts. Its elements are counted by the owner of their share; the shared section by the first of the ranks
/// that share its layers; a tied copy by nobody.
Part ParameterStore::counted(int index) const {
  const Chunk& chunk = layout_.chunks()[unit(index).chunk];
  if (!chunk.held || chunk.copy) return {};
  const Part own = owned_of(index);
  const std::int64_t begin = std::max(own.begin, division_.rank(Axis::tensor) == 0 ? 0 : chunk.sections[1] - unit(index).begin);
  return {begin, std::max<std::int64_t>(0, own.begin + own.count - begin)};
}

/// Room for some numbers on the device of a tensor.
Tensor ParameterStore::scalars(const Tensor& beside, std::int64_t count, DType dtype) const {
  return plan_->at(&beside.device() == &plan_->device() ? scalars_ : host_scalars_, {count}, dtype);
}

/// What the optimizer steps: the values, or their masters.
Tensor ParameterStore::masters() const {
  return master_ ? plan_->at(master_, {division_.placement().moments ? owned_size() : layout_.size()}) : value();
}

std::vector<ParameterStore::Piece> ParameterStore::pieces() {
  if (master_ && masters_stale_) copy_masters(false);
  masters_stale_ = false;
  const auto view = [&](Kind kind, std::int64_t whole_at, std::int64_t owned_at, std::int64_t count) {
    return all(kind).slice(sharded(kind) ? owned_at : whole_at, count);
  };
  std::vector<Piece> out;
  const auto add = [&](std::int64_t begin, std::int64_t owned_at, std::int64_t count) {
    if (count == 0) return;
    const Tensor stepped = master_ ? masters().slice(division_.placement().moments ? owned_at : begin, count) : view(Kind::value, begin, owned_at, count);
    out.push_back({begin, count, stepped, view(Kind::gradient, begin, owned_at, count),
                   view(Kind::first_moment, begin, owned_at, count), view(Kind::second_moment, begin, owned_at, count)});
  };
  if (!division_.placement().moments) {
    add(0, 0, layout_.size());
    return out;
  }
  for (int u = 0; u < chunk_units(); ++u) add(unit(u).gradient + owned_of(u).begin, owned_[u], owned_of(u).count);
  return out;
}

void ParameterStore::clear() {
  const auto clear = [](const Tensor& tensor) {
    if (!tensor.device().is_host()) tensor.zero(tensor.device().stream());  // the host gives zeroed memory
  };
  clear(all(Kind::value));
  if (!learns()) return;
  for (const Kind kind : {Kind::first_moment, Kind::second_moment}) clear(all(kind));
}

void ParameterStore::initialise(std::uint64_t seed) {
  const RandomKey key(seed, Purpose::initialise);
  for (const Parameter& parameter : layout_.parameters()) {
    const std::uint32_t name = hash_of_name(parameter.name);
    const double deviation = parameter.initial.deviation;
    const float constant = static_cast<float>(parameter.initial.constant);
    change(parameter, [&](std::int64_t element, std::span<float> values) {
#pragma omp parallel for
      for (std::int64_t i = 0; i < std::ssize(values); ++i)
        values[i] = deviation > 0 ? static_cast<float>(deviation * key.normal(element + i, name)) : constant;
    });
  }
}

void ParameterStore::change(const Parameter& parameter, const Change& change) const {
  Stream& stream = plan_->device().stream();
  std::vector<float> host;
  for_each_run(Kind::value, parameter, 0, parameter.shape.count(), Extent::held, [&](std::int64_t element, Tensor run) {
    if (run.device().is_host()) return change(element, {run.as<float>(), static_cast<std::size_t>(run.count())});
    for (std::int64_t begin = 0; begin < run.count(); begin += piece_elements) {
      const Tensor piece = run.slice(begin, std::min(piece_elements, run.count() - begin));
      host.resize(static_cast<std::size_t>(piece.count()));
      plan_->staging().get(host, piece, stream);
      change(element + begin, host);
      plan_->staging().put(piece, host, stream);
    }
  });
}

void ParameterStore::for_each_run(Kind kind, const Parameter& parameter, std::int64_t begin, std::int64_t count, Extent extent,
                                  const Run& run) const {
  if (kind == Kind::value) {  // they may be changed here
    masters_stale_ = true;
    forget_windows();
  }
  const Tensor whole = all(kind);
  const Part units = layout_.units_of(parameter.chunk);
  layout_.for_each_run(parameter, begin, count, [&](std::int64_t element, std::int64_t offset, std::int64_t length) {
    for (int u = static_cast<int>(units.begin); u < units.begin + units.count; ++u) {
      const Part own = owned_of(u), wanted = extent == Extent::counted ? counted(u) : sharded(kind) ? own : Part{0, unit(u).count};
      const std::int64_t base = unit(u).gradient, shift = sharded(kind) ? owned_[u] - (base + own.begin) : 0;
      const std::int64_t from = std::max(offset, base + wanted.begin), to = std::min(offset + length, base + wanted.begin + wanted.count);
      if (from < to) run(element + from - offset, whole.slice(from + shift, to - from));
    }
  });
}

void ParameterStore::read(Kind kind, const std::string& name, std::int64_t begin, std::span<float> elements) const {
  for_each_run(kind, layout_.parameter(name), begin, std::ssize(elements), Extent::held, [&](std::int64_t element, Tensor run) {
    plan_->staging().get(elements.subspan(element - begin, run.count()), run, plan_->device().stream());
  });
}

void ParameterStore::write(Kind kind, const std::string& name, std::int64_t begin, std::span<const float> elements) const {
  for_each_run(kind, layout_.parameter(name), begin, std::ssize(elements), Extent::held, [&](std::int64_t element, Tensor run) {
    plan_->staging().put(run, elements.subspan(element - begin, run.count()), plan_->device().stream());
  });
}

}  // namespace collimate
