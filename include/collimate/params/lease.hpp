#pragma once
#include <memory>
#include <utility>

#include "collimate/comm/communicator.hpp"
#include "collimate/params/layout.hpp"

namespace collimate {

/// Room on the device for the values of one unit at a time, where they do not rest there whole.
struct Window {
  int unit = -1;    ///< what it holds, or is about to; -1: nothing
  int leases = 0;   ///< that are open
  std::unique_ptr<Transfer> transfer;  ///< from other ranks, that brings it
  Event arrived;                       ///< the copy from the host that does
};

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
