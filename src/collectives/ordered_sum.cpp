#include "collimate/collectives/ordered_sum.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

#include "collimate/collectives/shares.hpp"
#include "collimate/kernels/elementwise.hpp"

namespace collimate {
namespace {

constexpr std::int64_t least_piece = 1024;                      // elements of one node in one round of the exchange
constexpr std::int64_t usual_scratch = std::int64_t{1} << 20;   // elements of all nodes in one round

/// Whether `older` and `newer` form a node one level up.
bool joins(const SumNode& older, const SumNode& newer) {
  return older.level == newer.level && newer.first == older.first + (std::int64_t{1} << older.level) &&
         older.first % (std::int64_t{2} << older.level) == 0;
}

/// The most nodes that a run of n grains leaves wherever it starts. 2k nodes need the levels 0..k-1 twice, 2^(k+1) - 2 grains,
/// and one more node needs 2^k more.
std::int64_t most_nodes(std::int64_t n) {
  std::int64_t nodes = 0;
  for (std::int64_t grains = 1, size = 1; grains <= n;) {
    ++nodes;
    if (nodes % 2 == 0) size *= 2;
    grains += size;
  }
  return nodes;
}

}  // namespace

std::vector<SumNode> nodes_of(Part run) {
  std::vector<SumNode> nodes;
  for (std::int64_t grain = run.begin; grain < run.begin + run.count; ++grain) {
    nodes.push_back({grain, 0});
    while (nodes.size() > 1 && joins(nodes[nodes.size() - 2], nodes.back())) {
      nodes.pop_back();
      ++nodes.back().level;
    }
  }
  return nodes;
}

std::int64_t OrderedSum::Steps::run() const { return std::max<std::int64_t>(1, (most_grains + ranks - 1) / ranks); }

// Of one rank, whose run begins at 0, the nodes at a border b between groups are the bits of b; those after the next group need a place beside
// those that they have not merged with yet. What is left of the last group folds into the first grain's place.
std::int64_t OrderedSum::buffers_needed(const Steps& steps) {
  const std::int64_t run = steps.run(), group = std::min(steps.group, run);
  if (!steps.ordered) return 1;
  if (steps.ranks > 1) return group == 1 ? most_nodes(run) : (group < run ? most_nodes(run - 1) : 0) + most_nodes(group);
  std::int64_t most = 1;
  for (std::int64_t border = group; border < run; border += group) {
    const bool own = border + group < run && border % (2 * group) == 0;  // the next group's node does not merge with an older one
    most = std::max<std::int64_t>(most, std::popcount(static_cast<std::uint64_t>(border)) + own);
  }
  return most;
}

// On the device the first grain of a group is opened where it lasts, but where its node will merge with an older one: in every second group.
std::int64_t OrderedSum::room_needed(const Steps& steps) {
  const std::int64_t run = steps.run(), group = std::min(steps.group, run);
  const bool first_lasts = steps.memory == Memory::device && run < 2 * group;
  if (!steps.ordered || group == 1) return run > 1 || !first_lasts ? 1 : 0;
  if (steps.ranks > 1) return most_nodes(group - 1) + 1;  // the nodes before the last grain, and that one
  return std::bit_width(static_cast<std::uint64_t>(group)) - first_lasts;
}

OrderedSum::OrderedSum(MemoryPlan& plan, const std::string& name, std::vector<Part> ranges, const Steps& steps, Room room)
    : plan_(&plan),
      name_(name),
      steps_(steps),
      on_host_(steps.memory == Memory::host),
      buffers_(buffers_needed(steps)),
      room_buffers_(room_needed(steps)),
      room_(std::move(room)) {
  ensure(steps.most_grains >= 0 && steps.ranks >= 1 && std::has_single_bit(static_cast<std::uint64_t>(steps.group)),
         "'{}' cannot sum {} grains on {} ranks in groups of {}", name, steps.most_grains, steps.ranks, steps.group);
  for (const Part& part : ranges) {
    elements_ = std::max(elements_, part.begin + part.count);
    Range& range = ranges_.emplace_back();
    range.part = part;
    range.held.reserve(static_cast<std::size_t>(buffers_ + room_buffers_));
    range.free_buffers.reserve(static_cast<std::size_t>(buffers_));
    for (auto& free : range.free_room) free.reserve(static_cast<std::size_t>(room_buffers_));
  }
  stride_ = (elements_ + 15) / 16 * 16;
  lasts_.reserve(static_cast<std::size_t>(steps.run()));
  slot_ = plan.reserve(name + " sums", {buffers_, stride_}, DType::f32, lifetime_of_sums(steps.memory), steps.memory);
  if (steps.ranks > 1 && steps.ordered) {
    const std::int64_t nodes = steps.ranks * most_nodes(steps.run());
    scratch_elements_ = std::max(std::min(usual_scratch, nodes * stride_), nodes * least_piece);
    scratch_ = plan.reserve(name + " exchange", {scratch_elements_}, DType::f32, Lifetime::update, steps.memory);
  }
}

Tensor OrderedSum::buffer(int index) const {
  return plan_->at(slot_, {buffers_, stride_}).slice(index, 1).reshape({stride_}).slice(0, elements_);
}

Tensor OrderedSum::at(int range, const Place& place) const {
  const Part& part = ranges_[range].part;
  return place.lasting ? buffer(place.buffer).slice(part.begin, part.count) : room_(range, place.buffer, place.host);
}

OrderedSum::Place OrderedSum::take(Range& range, bool host, bool lasting) {
  std::vector<int>& free = lasting ? range.free_buffers : range.free_room[host];
  ensure(!free.empty(), "'{}' was planned for {} grains on {} ranks and got more", name_, steps_.most_grains, steps_.ranks);
  const int index = free.back();
  free.pop_back();
  return {host, lasting, index};
}

void OrderedSum::release(Range& range, const Place& place) {
  (place.lasting ? range.free_buffers : range.free_room[place.host]).push_back(place.buffer);
}

void OrderedSum::begin(Part run) {
  plan_->enter(Lifetime::update);
  ensure(run.count <= steps_.run(), "'{}' was planned for {} grains on {} ranks and got more", name_, steps_.most_grains, steps_.ranks);
  run_ = run;
  mark_lasting();
  for (Range& range : ranges_) {
    range.next = run.begin;
    range.held.clear();
    range.open.reset();
    const auto fill = [](std::vector<int>& free, std::int64_t count) {
      free.resize(static_cast<std::size_t>(count));
      std::iota(free.rbegin(), free.rend(), 0);  // 0 is taken first
    };
    fill(range.free_buffers, buffers_);
    for (auto& free : range.free_room) fill(free, room_buffers_);
  }
}

/// A grain lasts where a node begins at the end of its group. Of one rank's last group the first grain of all does: into it the rest folds.
void OrderedSum::mark_lasting() {
  lasts_.assign(static_cast<std::size_t>(run_.count), false);
  if (!steps_.ordered) {
    if (run_.count) lasts_[0] = true;
    return;
  }
  std::vector<SumNode> nodes;
  for (std::int64_t done = 0; done < run_.count;) {
    const std::int64_t end = std::min(done + steps_.group, run_.count);
    for (; done < end; ++done) {
      nodes.push_back({run_.begin + done, 0});
      for (; nodes.size() > 1 && joins(nodes[nodes.size() - 2], nodes.back()); ++nodes.back().level) nodes.pop_back();
    }
    if (end == run_.count && steps_.ranks == 1) nodes.resize(1);
    for (const SumNode& node : nodes) lasts_[node.first - run_.begin] = true;
  }
}

Tensor OrderedSum::open(int index, bool at_rest) {
  Range& range = ranges_[index];
  ensure(!range.open, "grain {} of '{}' was opened twice", range.next, name_);
  ensure(range.next < run_.begin + run_.count, "'{}' has all grains of the step, and one more is opened", name_);
  const bool host = on_host_ && at_rest;
  range.open = take(range, host, host == on_host_ && lasts_[range.next - run_.begin]);
  const Tensor gradient = at(index, *range.open);
  gradient.zero(stream(host));
  return gradient;
}

void OrderedSum::push(int index) {
  Range& range = ranges_[index];
  ensure(range.open.has_value(), "grain {} of '{}' was pushed but not opened", range.next, name_);
  range.held.push_back({{range.next++, 0}, *range.open});
  range.open.reset();
  while (range.held.size() > 1 && (!steps_.ordered || joins(range.held[range.held.size() - 2].node, range.held.back().node))) join(index);
  const std::int64_t done = range.next - run_.begin;
  if (done % steps_.group == 0 || done == run_.count) close_group(index);
}

/// The last two nodes of a range become one, in the older one's place.
void OrderedSum::join(int index) {
  Range& range = ranges_[index];
  Place newer = range.held.back().place;
  range.held.pop_back();
  const Place older = range.held.back().place;
  if (older.host && !newer.host) newer = move(index, newer, false);
  if (older.host) await_spills();
  kernels::add(at(index, older), at(index, older), at(index, newer), stream(older.host));
  ++range.held.back().node.level;
  release(range, newer);
}

/// To where the sum rests.
OrderedSum::Place OrderedSum::move(int index, const Place& from, bool lasting) {
  Range& range = ranges_[index];
  const Place to = take(range, on_host_, lasting);
  if (on_host_ && !from.host) {
    Stream& spill = plan_->device().stream(Lane::spill);
    spill.wait(stream(false).record());
    copy(at(index, to), at(index, from), spill);
    spilled_ = spill.record();
    stream(false).wait(*spilled_);  // the room is used again
  } else {
    copy(at(index, to), at(index, from), stream(on_host_));
  }
  release(range, from);
  return to;
}

/// Until what has left the device is there.
void OrderedSum::await_spills() {
  if (spilled_) plan_->device().stream(Lane::spill).finish(*spilled_);
  spilled_.reset();
}

/// What is left of a range goes to where it lasts.
void OrderedSum::close_group(int index) {
  Range& range = ranges_[index];
  while (steps_.ranks == 1 && range.next == run_.begin + run_.count && range.held.size() > 1) join(index);
  for (Held& held : range.held)
    if (!held.place.lasting) held.place = move(index, held.place, true);
}

/// sum = the nodes merged by the tree's rule, then folded from the right. Terms are overwritten; `sum` may be one of them.
void OrderedSum::merge(std::vector<SumNode> nodes, std::vector<Tensor> terms, Tensor sum) const {
  Stream& stream = this->stream(on_host_);
  std::size_t additions = terms.size() - 1;
  const auto add = [&](Tensor older, Tensor newer) {
    const Tensor target = --additions == 0 ? sum : older;  // before the last addition `sum` may still be a term
    kernels::add(target, older, newer, stream);
    return target;
  };
  std::size_t top = 0;  // nodes[0, top) and terms[0, top) are the stack
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    nodes[top] = nodes[i];
    terms[top++] = terms[i];
    for (; top > 1 && joins(nodes[top - 2], nodes[top - 1]); --top) {
      terms[top - 2] = add(terms[top - 2], terms[top - 1]);
      ++nodes[top - 2].level;
    }
  }
  for (; top > 1; --top) terms[top - 2] = add(terms[top - 2], terms[top - 1]);
  if (terms[0].data() != sum.data()) copy(sum, terms[0], stream);
}

/// Brings each share's pieces of all nodes to the share's owner, and merges them into the owner's share of `sum`; the others are left as
/// they are.
void OrderedSum::collect(Communicator& data, std::int64_t grains, Tensor sum) {
  std::vector<std::vector<SumNode>> nodes;
  for (int rank = 0; rank < steps_.ranks; ++rank) nodes.push_back(nodes_of(part_of(grains, rank, steps_.ranks)));
  for (int range = 0; range < std::ssize(ranges_); ++range) collect(data, nodes, range, sum);
}

/// One range of the gradient, a bounded piece per round.
void OrderedSum::collect(Communicator& data, const std::vector<std::vector<SumNode>>& nodes, int index, Tensor sum) {
  const Range& range = ranges_[index];
  const int me = data.rank(), ranks = steps_.ranks;
  std::vector<SumNode> all_nodes;
  std::int64_t longest = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    all_nodes.insert(all_nodes.end(), nodes[rank].begin(), nodes[rank].end());
    longest = std::max(longest, owned_part(range.part.count, rank, ranks).count);
  }
  const Tensor scratch = plan_->at(scratch_, {scratch_elements_});
  const std::int64_t piece = scratch_elements_ / static_cast<std::int64_t>(all_nodes.size());
  for (std::int64_t offset = 0; offset < longest; offset += piece) {
    const auto cut = [&](int owner) {
      const Part share = owned_part(range.part.count, owner, ranks);
      return Part{range.part.begin + share.begin + offset, std::clamp(share.count - offset, std::int64_t{0}, piece)};
    };
    const auto held = [&](std::size_t i, const Part& part) { return buffer(range.held[i].place.buffer).slice(part.begin, part.count); };
    const Part mine = cut(me);
    std::vector<Message> sends, receives;
    std::vector<Tensor> terms;
    for (int peer = 0; peer < ranks; ++peer) {
      for (std::size_t i = 0; i < nodes[peer].size() && mine.count > 0; ++i) {
        const bool own = peer == me;
        terms.push_back(own ? held(i, mine) : scratch.slice(static_cast<std::int64_t>(terms.size()) * piece, mine.count));
        if (!own) receives.push_back({terms.back(), peer});
      }
      for (std::size_t i = 0; peer != me && i < range.held.size(); ++i)
        if (const Part theirs = cut(peer); theirs.count > 0) sends.push_back({held(i, theirs), peer});
    }
    data.exchange(sends, receives, stream(on_host_));
    if (mine.count > 0) merge(all_nodes, terms, sum.slice(mine.begin, mine.count));
  }
}

Tensor OrderedSum::finish(Communicator& data, std::int64_t grains) {
  const int ranks = steps_.ranks;
  ensure(data.size() == ranks, "'{}' was planned for {} ranks, not {}", name_, ranks, data.size());
  const Part run = part_of(grains, data.rank(), ranks);
  for (const Range& range : ranges_)
    ensure(range.part.count == 0 || (!range.open && range.next == run.begin + run.count && run.begin == run_.begin),
           "'{}' did not get the grains [{}, {}) of rank {}", name_, run.begin, run.begin + run.count, data.rank());
  await_spills();
  const Tensor sum = buffer(0);
  if (grains == 0 || (!steps_.ordered && run.count == 0)) sum.zero(stream(on_host_));
  if (!steps_.ordered)
    data.all_reduce_unordered(sum, stream(on_host_));
  else if (ranks > 1 && grains > 0)
    collect(data, grains, sum);
  for (Range& range : ranges_) range.held.clear();
  return sum;
}

}  // namespace collimate
