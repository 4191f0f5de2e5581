#include "collimate/params/residence.hpp"

namespace collimate {

void Residence::reserve(MemoryPlan& plan, const std::string& name, std::vector<std::int64_t> counts, std::vector<bool> on_host, DType dtype) {
  plan_ = &plan;
  dtype_ = dtype;
  counts_ = std::move(counts);
  on_host_ = std::move(on_host);
  for (std::size_t u = 0; u < counts_.size(); ++u) {
    offsets_.push_back(elements_[on_host_[u]]);
    elements_[on_host_[u]] += counts_[u];
  }
  for (const bool host : {false, true})
    if (elements_[host]) slots_[host] = plan.reserve(name, {elements_[host]}, dtype, Lifetime::always, host ? Memory::host : Memory::device);
}

Tensor Residence::at(int unit) const {
  const bool host = on_host_[unit];
  if (counts_[unit] == 0) return {nullptr, dtype_, {0}, host ? plan_->device().host() : plan_->device()};
  return plan_->at(slots_[host], {elements_[host]}, dtype_).slice(offsets_[unit], counts_[unit]);
}

std::vector<Tensor> Residence::ranges() const {
  std::vector<Tensor> out;
  for (const bool host : {false, true})
    if (elements_[host]) out.push_back(plan_->at(slots_[host], {elements_[host]}, dtype_));
  return out;
}

}  // namespace collimate
