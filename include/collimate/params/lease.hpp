#pragma once
#include <utility>

#include "collimate/params/layout.hpp"
#include "collimate/params/windows.hpp"

namespace collimate {

/// The parameters of one unit while a layer uses them: values, and the gradient of the grain being computed (absent in a model that does
/// not learn). Its end marks their last use: then the values may go.
class Lease {
 public:
  Lease() = default;
  /// begin: of the unit in its chunk
  Lease(Tensor value, Tensor gradient, std::int64_t begin, Window* window = nullptr)
      : value(value), gradient(gradient), begin_(begin), window_(window) {
    if (window_) ++window_->leases;
  }
  Lease(Lease&& other) noexcept
      : value(other.value), gradient(other.gradient), begin_(other.begin_), window_(std::exchange(other.window_, nullptr)) {}
  Lease& operator=(Lease&& other) noexcept {
    std::swap(value, other.value);
    std::swap(gradient, other.gradient);
    std::swap(begin_, other.begin_);
    std::swap(window_, other.window_);
    return *this;
  }
  ~Lease() {
    if (window_) --window_->leases;
  }

  Tensor value;     ///< [elements of the unit] f32
  Tensor gradient;  ///< [elements of the unit] f32
  /// view: in the chunk
  Tensor at(const View& view) const { return value.slice(view.offset - begin_, view.count()).reshape(view.shape); }
  /// Absent where the parameters are frozen.
  Tensor gradient_at(const View& view) const {
    return gradient ? gradient.slice(view.offset - begin_, view.count()).reshape(view.shape) : Tensor();
  }

 private:
  std::int64_t begin_ = 0;
  Window* window_ = nullptr;
};

}  // namespace collimate
