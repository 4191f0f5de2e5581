#include "collimate/collectives/sharded_sum.hpp"

#include <algorithm>
#include <bit>

#include "collimate/collectives/shares.hpp"
#include "collimate/kernels/elementwise.hpp"

namespace collimate {

ShardedSum::ShardedSum(MemoryPlan& plan, const std::string& name, std::vector<Range> ranges, std::int64_t most_grains, int rank, int ranks,
                       bool ordered, Memory memory)
    : plan_(&plan), name_(name), ranges_(std::move(ranges)), most_grains_(most_grains), rank_(rank), ranks_(ranks), ordered_(ordered) {
  for (Range& range : ranges_) {
    const std::int64_t owned = owned_part(range.size, rank, ranks).count;
    range.owned_offset = elements_;
    elements_ += owned;
    scratch_elements_ = std::max(scratch_elements_, owned * ranks);
  }
  levels_ = ordered ? std::bit_width(static_cast<std::uint64_t>(std::max<std::int64_t>(1, most_grains))) : 1;
  slot_ = plan.reserve(name + " sums", {levels_, elements_}, DType::f32, lifetime_of_sums(memory), memory);
  scratch_ = plan.reserve(name + " exchange", {scratch_elements_}, DType::f32, Lifetime::update, memory);
}

void ShardedSum::begin() {
  plan_->enter(Lifetime::update);
  counts_.assign(ranges_.size(), 0);
}

Tensor ShardedSum::level(std::size_t index, int range) const {
  const Tensor all = plan_->at(slot_, {levels_, elements_}).slice(static_cast<std::int64_t>(index), 1).reshape({elements_});
  return all.slice(ranges_[range].owned_offset, owned_part(ranges_[range].size, rank_, ranks_).count);
}

void ShardedSum::add(int range, Tensor gradient, int present, Communicator& data, Stream& stream) {
  const std::int64_t size = ranges_[range].size, owned = owned_part(size, rank_, ranks_).count;
  const Tensor scratch = plan_->at(scratch_, {scratch_elements_});
  std::vector<Message> sends, receives;
  std::vector<Tensor> leaves;
  for (int peer = 0; peer < ranks_; ++peer) {
    const Part theirs = owned_part(size, peer, ranks_);
    if (peer == rank_ && rank_ < present) {
      leaves.push_back(gradient.slice(theirs.begin, theirs.count));
      continue;
    }
    if (rank_ < present && theirs.count > 0) sends.push_back({gradient.slice(theirs.begin, theirs.count), peer});
    if (peer >= present) continue;
    leaves.push_back(scratch.slice(owned * peer, owned));
    if (owned > 0) receives.push_back({leaves.back(), peer});
  }
  data.exchange(sends, receives, stream);
  for (const Tensor& leaf : leaves) push(range, leaf, stream);
}

void ShardedSum::push(int range, Tensor leaf, Stream& stream) {
  std::int64_t& count = counts_[range];
  ensure(count < most_grains_, "'{}' was planned for {} grains and got more", name_, most_grains_);
  if (!ordered_ && count > 0) return kernels::add(level(0, range), level(0, range), leaf, stream);
  std::size_t l = 0;
  for (; count >> l & 1; ++l) {
    const bool last = !(count >> (l + 1) & 1);
    kernels::add(last ? level(l + 1, range) : leaf, level(l, range), leaf, stream);
  }
  ++count;
  if (l == 0) copy(level(0, range), leaf, stream);
}

// What is left folds from the right: older + (what came after).
Tensor ShardedSum::finish(Stream& stream) {
  for (int range = 0; range < static_cast<int>(ranges_.size()); ++range) {
    const std::int64_t count = counts_[range];
    const Tensor first = level(0, range);
    if (count == 0) {
      first.zero(stream);
      continue;
    }
    std::size_t l = 0;
    while (!(count >> l & 1)) ++l;
    Tensor sum = level(l, range);
    for (++l; count >> l; ++l) {
      if (!(count >> l & 1)) continue;
      const Tensor older = level(l, range);
      kernels::add(older, older, sum, stream);
      sum = older;
    }
    if (sum.data() != first.data()) copy(first, sum, stream);
  }
  return plan_->at(slot_, {levels_, elements_}).slice(0, 1).reshape({elements_});
}

}  // namespace collimate
