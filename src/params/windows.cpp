#include "collimate/params/windows.hpp"

#include "collimate/params/store.hpp"

namespace collimate {

void Windows::reserve() {
  if (values_) values_slot_ = plan_->reserve(name_ + "fetched units", {count, values_}, DType::u8);
  if (gradients_) gradient_slot_ = plan_->reserve(name_ + "gradients of a unit", {gradients_, gradient_}, DType::f32, Lifetime::update);
}

void Windows::claim(ParameterStore& store) {
  if (owner_ == &store) return;
  if (owner_) owner_->forget_windows();
  owner_ = &store;
}

Tensor Windows::values(int window, std::int64_t elements, DType dtype) const {
  const Tensor bytes = plan_->at(values_slot_, {count, values_}, DType::u8).slice(window, 1);
  return {bytes.data(), dtype, {elements}, bytes.device()};
}

Tensor Windows::gradient(int buffer, std::int64_t begin, std::int64_t elements) const {
  return plan_->at(gradient_slot_, {gradients_, gradient_}).slice(buffer, 1).reshape({gradient_}).slice(begin, elements);
}

}  // namespace collimate
