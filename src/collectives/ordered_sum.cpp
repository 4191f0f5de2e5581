#include "collimate/collectives/ordered_sum.hpp"

#include <algorithm>
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

std::int64_t OrderedSum::buffers_needed(std::int64_t most_grains, int ranks) {
  const std::int64_t run = std::max<std::int64_t>(1, (most_grains + ranks - 1) / ranks);
  if (ranks > 1) return most_nodes(run - 1) + 1;  // the nodes before the last grain, and that one
  std::int64_t levels = 0;
  while (std::int64_t{2} << levels <= run) ++levels;
  return levels + 1;
}

OrderedSum::OrderedSum(MemoryPlan& plan, const std::string& name, std::int64_t elements, std::int64_t most_grains, int ranks,
                       std::vector<Part> ranges, bool ordered, Memory memory)
    : plan_(&plan),
      name_(name),
      elements_(elements),
      stride_((elements + 15) / 16 * 16),
      most_grains_(most_grains),
      buffers_(ordered ? buffers_needed(most_grains, ranks) : std::clamp<std::int64_t>(most_grains, 1, 2)),
      ranks_(ranks),
      ranges_(std::move(ranges)),
      ordered_(ordered) {
  if (ranges_.empty()) ranges_.push_back({0, elements});
  ensure(elements >= 0 && most_grains >= 0 && ranks >= 1, "'{}' cannot sum {} elements of {} grains on {} ranks", name, elements,
         most_grains, ranks);
  scratch_elements_ = 0;
  slot_ = plan.reserve(name + " sums", {buffers_, stride_}, DType::f32, Lifetime::update, memory);
  if (ranks > 1 && ordered) {
    const std::int64_t nodes = ranks * most_nodes((most_grains + ranks - 1) / ranks);
    scratch_elements_ = std::max(std::min(usual_scratch, nodes * stride_), nodes * least_piece);
    scratch_ = plan.reserve(name + " exchange", {scratch_elements_}, DType::f32, Lifetime::update, memory);
  }
}

Tensor OrderedSum::buffer(int index) const {
  const Tensor all = plan_->at(slot_, {buffers_, stride_});
  return all.slice(index, 1).reshape({stride_}).slice(0, elements_);
}

int OrderedSum::take() {
  ensure(!free_.empty(), "'{}' was planned for {} grains on {} ranks and got more", name_, most_grains_, ranks_);
  const int index = free_.back();
  free_.pop_back();
  return index;
}

void OrderedSum::begin(std::int64_t first_grain) {
  plan_->enter(Lifetime::update);
  held_.clear();
  free_.resize(static_cast<std::size_t>(buffers_));
  std::iota(free_.rbegin(), free_.rend(), 0);  // buffer 0 is taken first
  next_ = first_grain;
  open_ = -1;
}

Tensor OrderedSum::open(Stream& stream) {
  ensure(open_ < 0, "grain {} of '{}' was opened twice", next_, name_);
  open_ = take();
  const Tensor gradient = buffer(open_);
  gradient.zero(stream);
  return gradient;
}

void OrderedSum::push(Stream& stream) {
  ensure(open_ >= 0, "grain {} of '{}' was pushed but not opened", next_, name_);
  held_.push_back({{next_++, 0}, open_});
  open_ = -1;
  while (held_.size() > 1 && (!ordered_ || joins(held_[held_.size() - 2].node, held_.back().node))) {
    const int newer = held_.back().buffer;
    held_.pop_back();
    const Tensor older = buffer(held_.back().buffer);
    kernels::add(older, older, buffer(newer), stream);
    ++held_.back().node.level;
    free_.push_back(newer);
  }
}

/// sum = the nodes merged by the tree's rule, then folded from the right. Terms are overwritten; `sum` may be one of them.
Tensor OrderedSum::merge(std::vector<SumNode> nodes, std::vector<Tensor> terms, Tensor sum, Stream& stream) const {
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
  return sum;
}

/// Brings each share's pieces of all nodes to the share's owner, and merges them into the owner's share of `sum`; the others are left as
/// they are.
void OrderedSum::collect(Communicator& data, std::int64_t grains, Tensor sum, Stream& stream) {
  std::vector<std::vector<SumNode>> nodes;
  for (int rank = 0; rank < ranks_; ++rank) nodes.push_back(nodes_of(part_of(grains, rank, ranks_)));
  for (const Part& range : ranges_) collect(data, nodes, range, sum, stream);
}

/// One range of the gradient, a bounded piece per round.
void OrderedSum::collect(Communicator& data, const std::vector<std::vector<SumNode>>& nodes, Part range, Tensor sum, Stream& stream) {
  const int me = data.rank();
  std::vector<SumNode> all_nodes;
  std::int64_t longest = 0;
  for (int rank = 0; rank < ranks_; ++rank) {
    all_nodes.insert(all_nodes.end(), nodes[rank].begin(), nodes[rank].end());
    longest = std::max(longest, owned_part(range.count, rank, ranks_).count);
  }
  const Tensor scratch = plan_->at(scratch_, {scratch_elements_});
  const std::int64_t piece = scratch_elements_ / static_cast<std::int64_t>(all_nodes.size());
  for (std::int64_t offset = 0; offset < longest; offset += piece) {
    const auto cut = [&](int owner) {
      const Part share = owned_part(range.count, owner, ranks_);
      return Part{range.begin + share.begin + offset, std::clamp(share.count - offset, std::int64_t{0}, piece)};
    };
    const Part mine = cut(me);
    std::vector<Message> sends, receives;
    std::vector<Tensor> terms;
    for (int peer = 0; peer < ranks_; ++peer) {
      for (std::size_t i = 0; i < nodes[peer].size() && mine.count > 0; ++i) {
        const bool own = peer == me;
        terms.push_back(own ? buffer(held_[i].buffer).slice(mine.begin, mine.count)
                            : scratch.slice(static_cast<std::int64_t>(terms.size()) * piece, mine.count));
        if (!own) receives.push_back({terms.back(), peer});
      }
      for (std::size_t i = 0; peer != me && i < held_.size(); ++i)
        if (const Part theirs = cut(peer); theirs.count > 0)
          sends.push_back({buffer(held_[i].buffer).slice(theirs.begin, theirs.count), peer});
    }
    data.exchange(sends, receives, stream);
    if (mine.count > 0) merge(all_nodes, terms, sum.slice(mine.begin, mine.count), stream);
  }
}

Tensor OrderedSum::finish(Communicator& data, std::int64_t grains, Stream& stream) {
  ensure(data.size() == ranks_ && open_ < 0, "'{}' was planned for {} ranks, not {}, or a grain is still open", name_, ranks_, data.size());
  const Tensor sum = buffer(0);
  if (!ordered_) {
    if (held_.empty()) sum.zero(stream);
    data.all_reduce_unordered(sum, stream);
    held_.clear();
    return sum;
  }
  std::vector<SumNode> present;
  for (const Held& held : held_) present.push_back(held.node);
  const Part run = part_of(grains, data.rank(), ranks_);
  ensure(present == nodes_of(run), "'{}' did not get the grains [{}, {}) of rank {}", name_, run.begin, run.begin + run.count, data.rank());
  if (grains == 0) {
    sum.zero(stream);
  } else if (ranks_ == 1) {
    std::vector<Tensor> terms;
    for (const Held& held : held_) terms.push_back(buffer(held.buffer));
    merge(present, terms, sum, stream);
  } else {
    collect(data, grains, sum, stream);
  }
  held_.clear();
  return sum;
}

}  // namespace collimate
