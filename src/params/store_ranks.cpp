// What a store does together with the other ranks that hold parts of the same model.
#include <algorithm>
#include <map>
#include <utility>

#include "collimate/base/error.hpp"
#include "collimate/collectives/all_reduce.hpp"
#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/optimizer.hpp"
#include "collimate/params/store.hpp"

namespace collimate {
namespace {

std::uint64_t mix(std::uint64_t x) {  // the finaliser of splitmix64
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ x >> 27) * 0x94d049bb133111ebull;
  return x ^ x >> 31;
}

/// "rank 2 holds others than the ranks 0, 1 and 3", or "the ranks 0 and 1 differ".
std::string groups_text(const std::map<std::uint64_t, std::vector<int>>& ranks) {
  const auto listed = [](const std::vector<int>& some) {
    std::string text = some.size() > 1 ? "the ranks " : "rank ";
    for (std::size_t i = 0; i < some.size(); ++i) text += fmt::format("{}{}", i == 0 ? "" : i + 1 < some.size() ? ", " : " and ", some[i]);
    return text;
  };
  std::vector<int> most, rest, all;
  for (const auto& [hash, some] : ranks)
    if (some.size() > most.size()) most = some;
  for (const auto& [hash, some] : ranks) {
    all.insert(all.end(), some.begin(), some.end());
    if (some != most) rest.insert(rest.end(), some.begin(), some.end());
  }
  std::sort(rest.begin(), rest.end());
  std::sort(all.begin(), all.end());
  if (most.size() <= rest.size()) return listed(all) + " differ";
  return fmt::format("{} {} others than {}", listed(rest), rest.size() > 1 ? "hold" : "holds", listed(most));
}

}  // namespace

Window* ParameterStore::window_of(int unit) {
  for (Window& window : windows_)
    if (window.unit == unit) return &window;
  return nullptr;
}

/// One without a lease whose unit is needed last, or never again as far as is known.
Window* ParameterStore::free_window() {
  Window* best = nullptr;
  std::size_t latest = 0;
  for (Window& window : windows_) {
    if (window.leases > 0) continue;
    std::size_t use = 0;
    while (use < windows_.size() && (itinerary_.ahead(use) < 0 || unit(itinerary_.ahead(use)).values != window.unit)) ++use;
    if (best && use <= latest) continue;
    best = &window;
    latest = use;
  }
  return best;
}

void ParameterStore::forget_windows() const {
  if (windows_.empty()) return;
  plan_->device().stream(Lane::fetch).wait();
  for (Window& window : windows_) {
    ensure(window.leases == 0, "{}: values change while unit {} is used", model_, window.unit);
    window = {};
  }
}

/// Brings what rests here of a unit into a window; sends this rank's share to all replicas and receives theirs.
void ParameterStore::start_gather(Window& window, int index) {
  window = {};
  window.unit = index;
  window.step = steps_;
  step_before_use(index);
  const std::int64_t size = unit(index).count;
  const bool whole = !division_.placement().values;
  const int ranks = whole ? 1 : division_.ranks(Axis::data), me = division_.rank(Axis::data);
  Stream &stream = plan_->device().stream(), &fetch = plan_->device().stream(Lane::fetch);
  const Tensor target = place_of(window, size);
  const Part owned = whole ? Part{0, size} : owned_of(index);
  const Tensor mine = values_.at(index), own = target.slice(owned.begin, owned.count);
  fetch.wait(stream.record());  // the last use of the window
  copy(own, mine, fetch);
  window.arrived = fetch.record();
  if (ranks == 1) return;
  std::vector<Message> sends, receives;
  for (int step = 1; step < ranks; ++step) {
    const int to = (me + step) % ranks, from = (me + ranks - step) % ranks;
    if (mine.count()) sends.push_back({mine, to});
    if (const Part part = owned_part(size, from, ranks); part.count) receives.push_back({target.slice(part.begin, part.count), from});
  }
  window.transfer = division_.along(Axis::data).start(sends, receives, stream);
}

/// Starts to bring the next unit of the itinerary that does not rest here, where there is room.
void ParameterStore::bring_next() {
  std::size_t ahead = 0;
  while (itinerary_.ahead(ahead) >= 0 && rests_whole(unit(itinerary_.ahead(ahead)).values)) ++ahead;
  const int next = itinerary_.ahead(ahead);
  if (next < 0 || window_of(unit(next).values)) return;
  if (Window* const room = free_window()) start_gather(*room, unit(next).values);
}

/// The window with the values of a unit.
Window& ParameterStore::bring(int unit) {
  shared_->claim(*this);
  Window* window = window_of(unit);
  if (!window) {
    window = free_window();
    ensure(window != nullptr, "{}: unit {} is fetched while {} others are used", model_, unit, windows_.size());
    start_gather(*window, unit);
  }
  ensure(window->step == steps_, "{}: unit {} of {} is fetched with the values of step {} after step {}", model_, unit, name_of_unit(unit), window->step,
         steps_);
  if (window->transfer) window->transfer->wait();
  window->transfer.reset();
  plan_->device().stream().wait(window->arrived);
  return *window;
}

void ParameterStore::hold_all() {
  if (!whole_) return;
  ensure(!holds_all_, "model {} is held whole already", model_);
  plan_->enter(Lifetime::rollout);
  const Tensor whole = plan_->at(whole_, {layout_.size()}, use_.values);
  itinerary_.clear();
  itinerary_.add(all_units_);
  for (const int u : all_units_) copy(whole.slice(unit(u).gradient, unit(u).count), fetch(u).value, plan_->device().stream());
  holds_all_ = true;
}

/// A sharded gradient, in host memory.
Tensor ParameterStore::spill(int index) {
  const Tensor target = gradient_room(index, 0, true);
  Stream &compute = plan_->device().stream(), &spill = plan_->device().stream(Lane::spill);
  spill.wait(compute.record());
  copy(target, gradient_room(index, 0, false), spill);
  spill.finish(spill.record());
  return target;
}

void ParameterStore::reduce(int index) {
  if (!step_open_) return;
  const bool host = state_on_host(index);
  const int range = static_cast<int>(place_[index]);
  Sums& sums = sums_[host];
  if (sums.run) {
    if (sums.run->opened(range)) sums.run->push(range);
    return;
  }
  const bool present = in_backward_ == index;
  const int ranks = division_.ranks(Axis::data);
  const auto grains = static_cast<int>(std::clamp<std::int64_t>(grains_ - reduced_[sums.units[range]]++ * ranks, 0, ranks));  // in this micro-step
  ensure(present == (division_.rank(Axis::data) < grains), "{}: unit {} of {} is reduced {} a gradient", model_, index, name_of_unit(index),
         present ? "with" : "without");
  Tensor gradient;
  if (present) gradient = written_at_rest_ || !host ? gradient_room(index, 0, written_at_rest_) : spill(index);
  in_backward_ = -1;
  sums.shared->add(range, gradient, grains, division_.along(Axis::data), stream_of(host));
}

void ParameterStore::finish_step() {
  settle();  // what nobody has fetched in this step
  for (const bool host : {false, true}) {
    Sums& sums = sums_[host];
    if (sums.run) sums.result = sums.run->finish(division_.along(Axis::data), grains_);
    if (sums.shared) sums.result = sums.shared->finish(stream_of(host));
  }
  step_open_ = false;
  forget_windows();  // values will change
  exchange_ties();
  if (!division_.placement().moments && division_.ordered) gather_units(Kind::gradient);
}

/// What a rank has of a unit's sum at the end of a step: its share, but in the fast mode everything.
Part ParameterStore::summed(int index) const {
  return division_.ordered || division_.placement().moments ? owned_of(index) : Part{0, unit(index).count};
}

/// Every replica's shares of all units on every replica.
void ParameterStore::gather_units(Kind kind) const {
  if (division_.ranks(Axis::data) == 1) return;
  for (int u = 0; u < chunk_units(); ++u)
    if (unit(u).count) {
      const Tensor whole = kind == Kind::value ? values_.at(u) : at(kind, u);
      gather_shares(division_.along(Axis::data), whole, whole.device().stream());
    }
}

/// Adds the gradients of a tied chunk's two places, the first place's first. On two stages each ends with the same sum.
void ParameterStore::exchange_ties() {
  for (int second = chunk_units(); second < std::ssize(layout_.units()); ++second) {
    const int first = unit(second).values;
    const Chunk& chunk = layout_.chunks()[unit(first).chunk];
    if (!chunk.held) continue;
    const bool host = state_on_host(first), whole = !sharded(Kind::gradient);
    const Part own = summed(first);
    const auto sum_of = [&](int index) { return whole ? at(Kind::gradient, index).slice(own.begin, own.count) : at(Kind::gradient, index); };
    const Tensor sum = sum_of(first);
    Stream& stream = stream_of(host);
    if (layout_.summed_apart(unit(second))) {
      kernels::add(sum, sum, sum_of(second), stream);
    } else if (tie_room_[host]) {
      const std::int64_t most = most_tie_room_;
      const int peer = chunk.copy ? 0 : division_.stages() - 1;
      for (std::int64_t begin = 0; begin < sum.count(); begin += most) {
        const Tensor mine = sum.slice(begin, std::min(most, sum.count() - begin)), theirs = plan_->at(tie_room_[host], {mine.count()});
        const Message send{mine, peer}, receive{theirs, peer};
        division_.along(Axis::pipeline).exchange({&send, 1}, {&receive, 1}, stream);
        chunk.copy ? kernels::add(mine, theirs, mine, stream) : kernels::add(mine, mine, theirs, stream);
      }
    }
  }
}

/// The masters of this rank's pieces become what its values are.
void ParameterStore::values_to_masters() const {
  Stream &compute = plan_->device().stream(), &spill = plan_->device().stream(Lane::spill);
  spill.wait(compute.record());
  for (int u = 0; u < chunk_units(); ++u)
    if (masters_.has(u)) copy(masters_.at(u), value_part(u, stepped(u)), spill);
  spill.wait();
}

/// What was stepped of a unit, to its values. Masters of values of another type are rounded: to values beside them, or on the host and then to the
/// device.
void ParameterStore::master_to_value(int index) const {
  if (!masters_.has(index)) return;
  const Tensor value = value_part(index, stepped(index)), master = masters_.at(index);
  if (rounds() && &value.device() == &master.device()) return kernels::cast(value, master, value.device().stream());
  Stream &compute = plan_->device().stream(), &fetch = plan_->device().stream(Lane::fetch);
  Tensor source = master;
  if (rounds()) {
    source = plan_->at(rounded_room_, {master.count()}, use_.values);
    fetch.wait();  // the room's last use
    kernels::cast(source, master, stream_of(true));
  }
  fetch.wait(compute.record());
  copy(value, source, fetch);
  compute.wait(fetch.record());
}

void ParameterStore::step(StepPiece step) {
  if (has_masters_ && masters_stale_ && !rounds()) values_to_masters();
  masters_stale_ = values_stale_ = false;
  step_ = std::move(step);
  ++steps_;
  division_.agree([&] {
    for (int u = 0; u < chunk_units(); ++u)
      if (!division_.pending || spreads() || !state_on_host_[u]) step_unit(u);
  });
  if (spreads()) gather_units(Kind::value);
}

void ParameterStore::round_values() {
  if (!rounds()) return;
  forget_windows();
  for (int u = 0; u < chunk_units(); ++u) master_to_value(u);
  values_stale_ = false;
  if (spreads()) gather_units(Kind::value);
}

/// Hashes of what this rank holds of each parameter: all of it, or only what it counts.
std::vector<std::uint64_t> ParameterStore::held_hashes(Kind kind, Extent extent) const {
  std::vector<std::uint64_t> out(layout_.parameters().size());
  for (std::size_t p = 0; p < out.size(); ++p) {
    const Parameter& parameter = layout_.parameters()[p];
    Tensor hash;  // beside the runs that come one after the other on one tier
    const auto add = [&] {
      if (!hash) return;
      std::uint64_t sum = 0;
      plan_->staging().get(std::span(&sum, 1), hash, hash.device().stream());
      out[p] += sum;
    };
    for_each_run(kind, parameter, 0, parameter.shape.count(), extent, [&](std::int64_t element, Tensor run) {
      if (!hash || &hash.device() != &run.device()) {
        add();
        hash = scalars(run, 1, DType::u64);
        hash.zero(hash.device().stream());
      }
      kernels::element_hash(hash, run, element, hash.device().stream());
    });
    add();
  }
  return out;
}

/// A sentence where ranks of a line along an axis hold different bits of a parameter that they all `hold`; else "".
std::string ParameterStore::disagreement(Kind kind, const std::vector<std::uint64_t>& mine, Axis axis,
                                         const std::function<bool(const Parameter&, int place)>& holds) const {
  const auto all = gather_all(division_.along(axis), mine);
  const auto rank_at = [&](int place) {
    GridCoord coord = division_.grid->coord();
    coord.set(axis, place);
    return division_.grid->rank_of(coord);
  };
  std::string found;
  int tensors = 0;
  for (std::size_t p = 0; p < mine.size(); ++p) {
    std::map<std::uint64_t, std::vector<int>> ranks;  // by what they hold
    for (int place = 0; place < std::ssize(all); ++place)
      if (holds(layout_.parameters()[p], place)) ranks[all[place][p]].push_back(rank_at(place));
    if (ranks.size() < 2 || ++tensors > 1) continue;
    found = fmt::format("of {} of {} that must be equal: {}", layout_.parameters()[p].name, model_, groups_text(ranks));
  }
  if (tensors > 1) found += fmt::format("; {} more tensors differ too", tensors - 1);
  return found.empty() ? "" : fmt::format("ranks hold different bits of the {} {}: a message or a memory went wrong", name_of(kind), found);
}

/// Throws, on all ranks, where replicas do not hold the same.
void ParameterStore::compare_replicas(Kind kind, const std::string& when) const {
  const std::vector<std::uint64_t> held = held_hashes(kind, Extent::held);
  const int last = division_.stages() - 1;
  const auto tied = [&](const Parameter& p) {
    return std::any_of(layout_.ties().begin(), layout_.ties().end(), [&](const auto& tie) { return tie.chunk == p.chunk; });
  };
  std::string found = disagreement(kind, held, Axis::data, [](const Parameter&, int) { return true; });
  for (const std::string& more :
       {disagreement(kind, held, Axis::tensor, [](const Parameter& p, int) { return p.split == Split::none; }),
        disagreement(kind, held, Axis::pipeline, [&](const Parameter& p, int stage) { return tied(p) && (stage == 0 || stage == last); })})
    if (found.empty()) found = more;
  division_.agree([&] {
    if (!found.empty()) fail_with(ExitCode::failure, "{}{}{}", when, when.empty() ? "" : ": ", found);
  });
}

std::vector<std::uint64_t> ParameterStore::hashes(Kind kind, const std::string& when) const {
  if (!division_.grid) return held_hashes(kind, Extent::held);
  // The sum of a step is whole only where every rank updates everything.
  if (!sharded(kind) && !(kind == Kind::gradient && division_.placement().moments)) compare_replicas(kind, when);
  std::vector<std::uint64_t> sums = held_hashes(kind, Extent::counted);
  all_reduce(division_.grid->world(), std::span(sums), plan_->device());
  return sums;
}

std::string name_of(Kind kind) {
  constexpr const char* names[] = {"value", "first moment", "second moment", "gradient"};
  return names[static_cast<int>(kind)];
}

std::uint64_t combine(const ParameterLayout& layout, const std::vector<std::uint64_t>& hashes) {
  std::uint64_t hash = 0;
  for (std::size_t p = 0; p < hashes.size(); ++p) hash = mix((hash + 0x9e3779b97f4a7c15ull * (layout.parameters()[p].chunk + 1)) ^ hashes[p]);
  return hash;
}

}  // namespace collimate
