#include "collimate/params/store.hpp"

#include <algorithm>
#include <iterator>
#include <set>
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
  if (!use.windows) own_windows_ = std::make_unique<Windows>(plan, model_ + " ");
  shared_ = use.windows ? use.windows : own_windows_.get();
  const auto reserve_own = [&] {
    if (own_windows_) own_windows_->reserve();
  };
  const Placement& placement = division.placement();
  const HostShares host = division.host;
  const int chunk_units = layout_.chunk_units();
  owned_.push_back(0);
  step_of_.assign(static_cast<std::size_t>(chunk_units), 0);
  for (int u = 0; u < chunk_units; ++u)
    owned_.push_back(owned_.back() + owned_part(unit(u).count, division.rank(Axis::data), division.ranks(Axis::data)).count);
  const auto counts = [&](bool share) {
    std::vector<std::int64_t> out;
    for (int u = 0; u < chunk_units; ++u) out.push_back(share ? owned_of(u).count : unit(u).count);
    return out;
  };
  const std::vector<bool> values_on_host = layout_.last_units(host.values);
  state_on_host_ = layout_.last_units(host.state);
  ensure(!learns() || host.values <= host.state, "{}: values on the host are stepped on the device", model_);
  ensure(use.values == DType::f32 || use.values == DType::bf16, "{}: values cannot rest as {}", model_, name_of(use.values));
  values_.reserve(plan, model_ + " values", counts(placement.values), values_on_host, use.values);
  const std::int64_t largest = layout_.largest_unit();
  const Shape room{std::max<std::int64_t>(1, learns() ? largest / kernels::chunk_block : 0)};
  scalars_ = plan.reserve(model_ + " norm and hash", room, DType::f64);
  if (host.values > 0 || host.state > 0) host_scalars_ = plan.reserve(model_ + " norm and hash", room, DType::f64, Lifetime::always, Memory::host);
  if (placement.values || std::ranges::count(values_on_host, true)) {
    windows_.resize(Windows::count);
    shared_->need_values(static_cast<std::size_t>(largest) * size_of(use.values));
    for (int u = 0; u < chunk_units; ++u)
      if (unit(u).count) all_units_.push_back(u);
    if (use.holds_rollouts && placement.values)
      whole_ = plan.reserve(model_ + " values, whole, to generate", {layout_.size()}, use.values, Lifetime::rollout);
  }
  if (!learns()) {
    reserve_own();
    return;
  }
  first_moments_.reserve(plan, model_ + " first moment", counts(placement.moments), state_on_host_);
  second_moments_.reserve(plan, model_ + " second moment", counts(placement.moments), state_on_host_);
  std::vector<std::int64_t> masters = counts(placement.moments);
  std::int64_t on_the_way = 0;  // rounded on the host, from where they go to the device
  for (int u = 0; u < chunk_units; ++u) {
    if (!rounds() && (!state_on_host_[u] || values_on_host[u])) masters[u] = 0;
    has_masters_ |= masters[u] > 0;
    ensure(state_on_host_[u] || !values_on_host[u], "{}: masters on the device of values on the host", model_);
    if (rounds() && state_on_host_[u] && !values_on_host[u]) on_the_way = std::max(on_the_way, masters[u]);
  }
  if (on_the_way) rounded_room_ = plan.reserve(model_ + " rounded values of a unit", {on_the_way}, use.values, Lifetime::always, Memory::host);
  masters_.reserve(plan, model_ + " masters", std::move(masters), state_on_host_);
  gradients_leave_ = placement.gradients || std::ranges::count(state_on_host_, true) > 0;
  place_.assign(layout_.units().size(), 0);
  reduced_.assign(layout_.units().size(), 0);
  for (const bool on_host : {false, true}) reserve_sums(on_host);
  reserve_own();
}

/// Sums of the units whose state rests on one tier, the room that they need, and that for what their ties exchange.
void ParameterStore::reserve_sums(bool host) {
  const Memory memory = host ? Memory::host : Memory::device;
  Sums& sums = sums_[host];
  std::vector<ShardedSum::Range> shares;
  std::vector<Part> runs;
  std::int64_t elements = 0, exchanged = 0;
  for (int u = 0; u < std::ssize(layout_.units()); ++u) {
    const Unit& unit = this->unit(u);
    if (state_on_host(u) != host) continue;
    const bool here = layout_.chunks()[unit.chunk].held;
    if (!layout_.summed_apart(unit)) {  // a tie's whose two places are on two stages: the chunk's own
      place_[u] = place_[unit.values];
      if (here && division_.stages() > 1) exchanged = std::max(exchanged, unit.count);
      continue;
    }
    place_[u] = std::ssize(sums.units);
    sums.units.push_back(u);
    shares.push_back({unit.count});
    runs.push_back({elements, unit.count});
    elements += unit.count;
  }
  if (sums.units.empty()) return;
  if (exchanged)
    tie_room_[host] = plan_->reserve(model_ + " tied gradient", {std::min(most_tie_room_, exchanged)}, DType::f32, Lifetime::update, memory);
  const OrderedSum::Steps steps{use_.most_grains, division_.ranks(Axis::data), use_.group, division_.ordered, memory};
  std::int64_t room = 1;
  if (division_.placement().gradients) {
    sums.shared = std::make_unique<ShardedSum>(*plan_, model_ + " gradient", std::move(shares), steps.most_grains, division_.rank(Axis::data), steps.ranks,
                                               steps.ordered, memory);
  } else {
    room = OrderedSum::room_needed(steps);
    sums.run = std::make_unique<OrderedSum>(*plan_, model_ + " gradient", std::move(runs), steps,
                                            [this, &sums](int range, int buffer, bool on_host) { return gradient_room(sums.units[range], buffer, on_host); });
  }
  // Units whose gradients stay on the device are open together where the head has several.
  std::int64_t together = layout_.largest_unit();
  for (const Chunk& chunk : layout_.chunks()) together = std::max(together, gradients_leave_ ? 0 : chunk.size);
  if (room) shared_->need_gradients(room, together);
  if (!room || !host) return;
  host_buffers_ = room;
  host_room_ = plan_->reserve(model_ + " gradients of a unit", {room, layout_.largest_unit()}, DType::f32, Lifetime::update, memory);
}

Part ParameterStore::owned_of(int index) const {
  return owned_part(unit(index).count, division_.rank(Axis::data), division_.ranks(Axis::data));
}

Part ParameterStore::stepped(int index) const { return division_.placement().moments ? owned_of(index) : Part{0, unit(index).count}; }

bool ParameterStore::sharded(Kind kind) const {
  const Placement& placement = division_.placement();
  return kind == Kind::value && !rounds() ? placement.values : kind == Kind::gradient ? placement.gradients : placement.moments;
}

Tensor ParameterStore::at(Kind kind, int index) const {
  switch (kind) {
    case Kind::value: return rounds() ? masters_.at(index) : values_.at(index);
    case Kind::first_moment: return first_moments_.at(index);
    case Kind::second_moment: return second_moments_.at(index);
    case Kind::gradient: break;
  }
  const Sums& sums = sums_[state_on_host(index)];
  const int range = static_cast<int>(place_[index]);
  return sums.shared ? sums.result.slice(sums.shared->offset(range), owned_of(unit(index).values).count)
                     : sums.result.slice(sums.run->part(range).begin, unit(index).count);
}

/// A part of a unit of which at least that rests here.
Tensor ParameterStore::part(Kind kind, int index, const Part& part) const {
  return at(kind, index).slice(part.begin - (sharded(kind) ? owned_of(index).begin : 0), part.count);
}

Tensor ParameterStore::value_part(int index, const Part& part) const {
  return values_.at(index).slice(part.begin - (division_.placement().values ? owned_of(index).begin : 0), part.count);
}

std::vector<Tensor> ParameterStore::units(Kind kind) const {
  if (kind != Kind::gradient) settle();
  std::vector<Tensor> out;
  for (int u = 0; u < chunk_units(); ++u) out.push_back(at(kind, u));
  return out;
}

Lease ParameterStore::fetch(int index) {
  const Unit& unit = this->unit(index);
  ensure(!values_stale_, "{}: values are fetched before they were rounded", model_);
  if (!itinerary_.done()) {
    ensure(itinerary_.ahead(0) == index, "{}: unit {} is fetched where {} was to come", model_, index, itinerary_.ahead(0));
    itinerary_.advance();
  }
  if (holds_all_) return {plan_->at(whole_, {layout_.size()}, use_.values).slice(this->unit(unit.values).gradient, unit.count), {}, unit.begin};
  if (rests_whole(unit.values)) {
    step_before_use(unit.values);
    return {values_.at(unit.values), {}, unit.begin};
  }
  Window& window = bring(unit.values);
  Lease lease(place_of(window, unit.count), {}, unit.begin, &window);
  bring_next();
  return lease;
}

Lease ParameterStore::gradient(int index, bool at_rest) {
  const Unit& unit = this->unit(index);
  ensure(layout_.chunks()[unit.chunk].held, "{}: the chunk {} lies on another stage", model_, name_of_unit(index));
  Lease lease({}, {}, unit.begin);
  if (!step_open_) return lease;
  ensure(!pending(unit.values), "{}: the gradient of unit {} of {} is wanted before its last step is done", model_, index, name_of_unit(index));
  const bool host = state_on_host(index);
  ensure(host || !at_rest, "{}: the gradient of unit {} of {} is not summed on the host", model_, index, name_of_unit(index));
  shared_->claim(*this);
  if (sums_[host].run) {
    lease.gradient = sums_[host].run->open(static_cast<int>(place_[index]), at_rest);
    return lease;
  }
  ensure(in_backward_ < 0, "{}: the gradient of unit {} of {} is wanted before another one was reduced", model_, index, name_of_unit(index));
  in_backward_ = index;
  written_at_rest_ = at_rest;
  lease.gradient = gradient_room(index, 0, at_rest);
  lease.gradient.zero(stream_of(at_rest));
  return lease;
}

/// Room for a gradient until it is summed.
Tensor ParameterStore::gradient_room(int index, int buffer, bool host) const {
  const Unit& unit = this->unit(index);
  if (!host) return shared_->gradient(buffer, gradients_leave_ ? 0 : unit.begin, unit.count);
  const std::int64_t largest = layout_.largest_unit();
  return plan_->at(host_room_, {host_buffers_, largest}).slice(buffer, 1).reshape({largest}).slice(0, unit.count);
}

Lease ParameterStore::at_rest(int index) const {
  ensure(!division_.placement().values && values_.on_host(index) && !values_stale_, "{}: unit {} does not rest on the host whole", model_, index);
  step_before_use(index);
  return {values_.at(index), {}, unit(index).begin};
}

void ParameterStore::begin_step(std::int64_t grains) {
  ensure(learns(), "model {} was not planned to learn", model_);
  grains_ = grains;
  step_open_ = true;
  in_backward_ = -1;
  std::ranges::fill(reduced_, 0);
  for (Sums& sums : sums_) {
    if (sums.run) sums.run->begin(part_of(grains, division_.rank(Axis::data), division_.ranks(Axis::data)));
    if (sums.shared) sums.shared->begin();
  }
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
  for (int u = 0; u < chunk_units(); ++u)
    if (const Part share = counted(u); share.count > 0) {
      blocks.resize(share.count / kernels::chunk_block);
      const Tensor gradient = part(Kind::gradient, u, share), squares = scalars(gradient, std::ssize(blocks), DType::f64);
      Stream& stream = gradient.device().stream();
      kernels::block_squares(squares, gradient, stream);
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

void ParameterStore::settle() const {
  for (int u = 0; u < chunk_units(); ++u) {
    if (!pending(u)) continue;
    step_unit(u);
    ++pending_steps_.settled;
  }
}

void ParameterStore::step_before_use(int index) const {
  if (!pending(index)) return;
  step_unit(index);
  ++pending_steps_.at_fetch;
}

void ParameterStore::step_unit(int index) const {
  step_of_[index] = steps_;
  const Part mine = stepped(index);
  if (!mine.count) return;
  step_({unit(index).gradient + mine.begin, mine.count, masters_.has(index) ? masters_.at(index) : part(Kind::value, index, mine),
         part(Kind::gradient, index, mine), part(Kind::first_moment, index, mine), part(Kind::second_moment, index, mine)});
  master_to_value(index);
}

double ParameterStore::fetched_bytes(std::span<const int> units) const {
  double bytes = 0;
  for (const int u : units) {
    const int values = unit(u).values;
    if (values_.on_host(values)) bytes += static_cast<double>(values_.count(values)) * size_of(use_.values);
  }
  return bytes;
}

double ParameterStore::spilled_bytes(std::span<const int> units, std::int64_t groups, std::int64_t grains) const {
  double bytes = 0;
  if (!learns()) return bytes;
  for (const int u : std::set<int>(units.begin(), units.end()))
    if (state_on_host(u)) bytes += 4.0 * static_cast<double>(unit(u).count * (division_.placement().gradients ? grains : groups));
  for (int u = 0; u < chunk_units(); ++u)
    if (state_on_host_[u] && !values_.on_host(u)) bytes += static_cast<double>(stepped(u).count) * size_of(use_.values);
  return bytes;
}

void ParameterStore::clear() {
  std::vector<Tensor> all = values_.ranges();
  if (learns())
    for (const Residence* kind : {&masters_, &first_moments_, &second_moments_}) std::ranges::copy(kind->ranges(), std::back_inserter(all));
  for (const Tensor& tensor : all)
    if (!tensor.device().is_host()) tensor.zero(tensor.device().stream());  // the host gives zeroed memory
}

void ParameterStore::initialise(std::uint64_t seed, const std::function<bool(const Parameter&)>& wanted, const std::function<double(const Parameter&)>& factor) {
  const RandomKey key(seed, Purpose::initialise);
  for (const Parameter& parameter : layout_.parameters()) {
    if (wanted && !wanted(parameter)) continue;
    const std::uint32_t name = hash_of_name(parameter.name);
    const double deviation = parameter.initial.deviation;
    const float constant = static_cast<float>(parameter.initial.constant);
    const double times = factor ? factor(parameter) : 1;
    change(parameter, [&](std::int64_t element, std::span<float> values) {
#pragma omp parallel for
      for (std::int64_t i = 0; i < std::ssize(values); ++i)
        values[i] = deviation > 0 ? static_cast<float>(times * static_cast<float>(deviation * key.normal(element + i, name))) : constant;
    });
  }
}

void ParameterStore::change(const Parameter& parameter, const Change& change) {
  std::vector<float> host;
  values_stale_ = rounds();
  for_each_run(Kind::value, parameter, 0, parameter.shape.count(), Extent::held, [&](std::int64_t element, Tensor run) {
    if (run.device().is_host() && run.dtype() == DType::f32) return change(element, {run.as<float>(), static_cast<std::size_t>(run.count())});
    for (std::int64_t begin = 0; begin < run.count(); begin += piece_elements) {
      const Tensor piece = run.slice(begin, std::min(piece_elements, run.count() - begin));
      host.resize(static_cast<std::size_t>(piece.count()));
      get(host, piece);
      change(element + begin, host);
      put(piece, host);
    }
  });
}

void ParameterStore::for_each_run(Kind kind, const Parameter& parameter, std::int64_t begin, std::int64_t count, Extent extent,
                                  const Run& run) const {
  if (kind != Kind::gradient) settle();
  if (kind == Kind::value) {  // they may be changed here
    masters_stale_ = true;
    forget_windows();
  }
  const Part units = layout_.units_of(parameter.chunk);
  layout_.for_each_run(parameter, begin, count, [&](std::int64_t element, std::int64_t offset, std::int64_t length) {
    for (int u = static_cast<int>(units.begin); u < units.begin + units.count; ++u) {
      const Part own = owned_of(u), wanted = extent == Extent::counted ? counted(u) : sharded(kind) ? own : Part{0, unit(u).count};
      const std::int64_t base = unit(u).gradient;
      const std::int64_t from = std::max(offset, base + wanted.begin), to = std::min(offset + length, base + wanted.begin + wanted.count);
      if (from < to) run(element + from - offset, part(kind, u, {from - base, to - from}));
    }
  });
}

void ParameterStore::read(Kind kind, const std::string& name, std::int64_t begin, std::span<float> elements) const {
  for_each_run(kind, layout_.parameter(name), begin, std::ssize(elements), Extent::held, [&](std::int64_t element, Tensor run) {
    get(elements.subspan(element - begin, run.count()), run);
  });
}

void ParameterStore::write(Kind kind, const std::string& name, std::int64_t begin, std::span<const float> elements) {
  if (kind == Kind::value) values_stale_ = rounds();
  for_each_run(kind, layout_.parameter(name), begin, std::ssize(elements), Extent::held, [&](std::int64_t element, Tensor run) {
    put(run, elements.subspan(element - begin, run.count()));
  });
}

void ParameterStore::get(std::span<float> numbers, const Tensor& run) const {
  Stream& stream = plan_->device().stream();
  if (run.dtype() == DType::f32) return plan_->staging().get(numbers, run, stream);
  std::vector<BFloat16> narrow(numbers.size());
  plan_->staging().get(narrow, run, stream);
  std::ranges::transform(narrow, numbers.begin(), to_float);
}

void ParameterStore::put(const Tensor& run, std::span<const float> numbers) {
  Stream& stream = plan_->device().stream();
  if (run.dtype() == DType::bf16)
    rounded_ += std::ranges::count_if(numbers, [](float x) { return to_float(to_bf16(x)) != x; });
  if (run.dtype() == DType::f32) return plan_->staging().put(run, numbers, stream);
  std::vector<BFloat16> narrow(numbers.size());
  std::ranges::transform(numbers, narrow.begin(), to_bf16);
  plan_->staging().put(run, std::span<const BFloat16>(narrow), stream);
}

}  // namespace collimate
