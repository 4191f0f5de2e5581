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

Tensor ParameterStore::place_of(const Window& window) const {
  const std::int64_t most = layout_.largest_unit();
  return plan_->at(windows_slot_, {std::ssize(windows_), most}).slice(&window - windows_.data(), 1).reshape({most});
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
  const std::int64_t size = unit(index).count;
  const bool whole = !sharded(Kind::value);
  const int ranks = whole ? 1 : division_.ranks(Axis::data), me = division_.rank(Axis::data);
  Stream &stream = plan_->device().stream(), &fetch = plan_->device().stream(Lane::fetch);
  const Tensor target = place_of(window).slice(0, size);
  const Part owned = whole ? Part{0, size} : owned_of(index);
  const Tensor mine = value().slice(whole ? unit(index).gradient : owned_[index], owned.count), own = target.slice(owned.begin, owned.count);
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

/// The window with the values of a unit.
Window& ParameterStore::bring(int unit) {
  Window* window = window_of(unit);
  if (!window) {
    window = free_window();
    ensure(window != nullptr, "{}: unit {} is fetched while {} others are used", model_, unit, windows_.size());
    start_gather(*window, unit);
  }
  if (window->transfer) window->transfer->wait();
  window->transfer.reset();
  plan_->device().stream().wait(window->arrived);
  return *window;
}

void ParameterStore::hold_all() {
  if (!sharded(Kind::value)) return;
  ensure(whole_ && !holds_all_, "model {} was not planned to be held whole, or is already", model_);
  plan_->enter(Lifetime::rollout);
  const Tensor whole = plan_->at(whole_, {layout_.size()});
  itinerary_.clear();
  itinerary_.add(all_units_);
  for (const int u : all_units_) copy(whole.slice(unit(u).gradient, unit(u).count), fetch(u).value, plan_->device().stream());
  holds_all_ = true;
}

/// Where sums of a state on the host take a unit's gradient of the grain.
Tensor ParameterStore::open_gradient(int index) const {
  return run_sum_ ? open_.slice(unit(index).gradient, unit(index).count) : plan_->at(spilled_, {unit(index).count});
}

Tensor ParameterStore::spill(int index) {
  const std::int64_t size = unit(index).count;
  const Tensor target = open_gradient(index);
  Stream &compute = plan_->device().stream(), &spill = plan_->device().stream(Lane::spill);
  spill.wait(compute.record());
  copy(target, plan_->at(unit_gradient_, {size}), spill);
  spill.finish(spill.record());
  return target;
}

void ParameterStore::reduce(int index) {
  if (!gradients_leave()) return;
  ensure(!grain_present_ || in_backward_ == index, "{}: unit {} of {} is reduced before its gradient was written", model_, index, name_of_unit(index));
  in_backward_ = -1;
  Tensor gradient;
  if (grain_present_)
    gradient = std::exchange(written_at_rest_, false) ? open_gradient(index)
               : on_host()                            ? spill(index)
                                                      : plan_->at(unit_gradient_, {unit(index).count});
  if (!shared_sum_) return;
  // A tied chunk whose two places are on two stages has one range, the chunk's own.
  const int range = layout_.summed_apart(unit(index)) ? index : unit(index).values;
  shared_sum_->add(range, gradient, grains_present_, division_.along(Axis::data), state_stream());
}

void ParameterStore::finish_step() {
  Stream& stream = state_stream();
  if (run_sum_)
    sum_of_step_ = run_sum_->finish(division_.along(Axis::data), grains_, stream);
  else
    sum_of_step_ = shared_sum_->finish(stream);
  forget_windows();  // values will change
  exchange_ties();
  if (!division_.placement().moments && division_.ordered) gather_units(sum_of_step_);
}

/// What a rank has of a unit's sum at the end of a step: its share, but in the fast mode everything.
Part ParameterStore::summed(int index) const {
  return division_.ordered || division_.placement().moments ? owned_of(index) : Part{0, unit(index).count};
}

/// Every replica's shares of all units on every replica.
void ParameterStore::gather_units(Tensor all) const {
  if (division_.ranks(Axis::data) == 1) return;
  for (int u = 0; u < chunk_units(); ++u)
    if (unit(u).count) gather_shares(division_.along(Axis::data), all.slice(unit(u).gradient, unit(u).count), all.device().stream());
}

/// Adds the gradients of a tied chunk's two places, the first place's first. On two stages each ends with the same sum.
void ParameterStore::exchange_ties() {
  Stream& stream = state_stream();
  const int chunks = static_cast<int>(layout_.chunks().size());
  const auto sum_of = [&](int index, const Part& part) {
    return sum_of_step_.slice(shared_sum_ ? shared_sum_->offset(index) : unit(index).gradient + part.begin, part.count);
  };
  for (int t = 0; t < static_cast<int>(layout_.ties().size()); ++t) {
    const auto& tie = layout_.ties()[t];
    const Chunk& chunk = layout_.chunks()[tie.chunk];
    if (!chunk.held) continue;
    const Part units = layout_.units_of(chunks + t);
    for (int second = static_cast<int>(units.begin); second < units.begin + units.count; ++second) {
      const int first = unit(second).values;
      const Tensor sum = sum_of(first, summed(first));
      if (tie.apart) {
        kernels::add(sum, sum, sum_of(second, summed(first)), stream);
      } else if (tie_room_) {
        const Tensor room = plan_->at(tie_room_, {tie_room_elements_});
        const int peer = chunk.copy ? 0 : division_.stages() - 1;
        for (std::int64_t begin = 0; begin < sum.count(); begin += tie_room_elements_) {
          const Tensor mine = sum.slice(begin, std::min(tie_room_elements_, sum.count() - begin)), theirs = room.slice(0, mine.count());
          const Message send{mine, peer}, receive{theirs, peer};
          division_.along(Axis::pipeline).exchange({&send, 1}, {&receive, 1}, stream);
          chunk.copy ? kernels::add(mine, theirs, mine, stream) : kernels::add(mine, mine, theirs, stream);
        }
      }
    }
  }
}

/// Between the masters of this rank's pieces, on the host, and its values, on the device.
void ParameterStore::copy_masters(bool to_values) {
  Stream &compute = plan_->device().stream(), &lane = plan_->device().stream(to_values ? Lane::fetch : Lane::spill);
  const bool shares = division_.placement().moments;
  lane.wait(compute.record());
  for (int u = 0; u < chunk_units(); ++u) {
    const Part part = shares ? owned_of(u) : Part{0, unit(u).count};
    const Tensor value = this->value().slice(sharded(Kind::value) ? owned_[u] : unit(u).gradient + part.begin, part.count);
    const Tensor master = masters().slice(shares ? owned_[u] : unit(u).gradient, part.count);
    to_values ? copy(value, master, lane) : copy(master, value, lane);
  }
  if (to_values)
    compute.wait(lane.record());
  else
    lane.wait();
}

void ParameterStore::spread_values() {
  if (master_) copy_masters(true);
  if (division_.placement().moments && !division_.placement().values) gather_units(value());
}

/// Hashes of what this rank holds of each parameter: all of it, or only what it counts.
std::vector<std::uint64_t> ParameterStore::held_hashes(Kind kind, Extent extent) const {
  std::vector<std::uint64_t> out(layout_.parameters().size());
  const Tensor hash = scalars(all(kind), 1, DType::u64);
  Stream& stream = hash.device().stream();
  for (std::size_t p = 0; p < out.size(); ++p) {
    const Parameter& parameter = layout_.parameters()[p];
    hash.zero(stream);
    for_each_run(kind, parameter, 0, parameter.shape.count(), extent,
                 [&](std::int64_t element, Tensor run) { kernels::element_hash(hash, run, element, stream); });
    plan_->staging().get(std::span(out).subspan(p, 1), hash, stream);
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
