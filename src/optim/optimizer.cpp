#include "collimate/optim/optimizer.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace collimate {

double LearningRate::at(std::int64_t step) const {
  if (step <= warmup) return peak * static_cast<double>(step) / static_cast<double>(warmup);
  if (shape == "constant") return peak;
  const double done = std::min(1.0, static_cast<double>(step - 1 - warmup) / static_cast<double>(std::max<std::int64_t>(1, steps - warmup)));
  const double left = shape == "cosine" ? 0.5 * (1 + std::cos(std::numbers::pi * done)) : 1 - done;
  return peak * (final_share + (1 - final_share) * left);
}

Optimizer::Optimizer(ParameterStore& store, kernels::AdamW how, double clip) : store_(&store), how_(how), clip_(clip) {
  how_.step = 1;
  const ParameterLayout& layout = store.layout();
  std::vector<Range> decaying;
  for (const Parameter& parameter : layout.parameters()) {
    if (!parameter.decays) continue;
    for (const View& part : parameter.parts)
      if (part.held() && part.count()) decaying.push_back({layout.chunks()[parameter.chunk].offset + part.offset, part.count(), true});
  }
  std::sort(decaying.begin(), decaying.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  std::int64_t end = 0;
  for (const Range& range : decaying) {
    if (range.begin > end) ranges_.push_back({end, range.begin - end, false});
    if (!ranges_.empty() && ranges_.back().decays && ranges_.back().begin + ranges_.back().count == range.begin)
      ranges_.back().count += range.count;
    else
      ranges_.push_back(range);
    end = range.begin + range.count;
  }
  if (end < layout.size()) ranges_.push_back({end, layout.size() - end, false});
}

StepReport Optimizer::step(double rate) {
  const double norm = std::sqrt(store_->gradient_squares());
  if (!std::isfinite(norm))
    throw AgreedError(ExitCode::failure,
                      fmt::format("the gradient norm of {} is {} at optimizer step {}: lower the learning rate or look at the samples of this "
                                  "step",
                                  store_->model(), norm, how_.step));
  kernels::AdamW how = how_;
  how.rate = rate;
  how.gradient_scale = clip_ > 0 && norm > clip_ ? clip_ / norm : 1;
  store_->step([this, how](const ParameterStore::Piece& piece) { update(piece, how); });
  ++how_.step;
  return {norm, rate};
}

void Optimizer::update(const ParameterStore::Piece& piece, kernels::AdamW how) const {
  for (const Range& range : ranges_) {
    const std::int64_t begin = std::max(range.begin, piece.begin), end = std::min(range.begin + range.count, piece.begin + piece.count);
    if (begin >= end) continue;
    const auto part = [&](const Tensor& tensor) { return tensor.slice(begin - piece.begin, end - begin); };
    how.decay = range.decays ? how_.decay : 0;
    kernels::adamw(part(piece.value), part(piece.gradient), part(piece.first_moment), part(piece.second_moment), how, piece.value.device().stream());
  }
}

}  // namespace collimate
