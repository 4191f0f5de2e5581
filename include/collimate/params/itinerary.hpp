#pragma once
#include <span>
#include <vector>

namespace collimate {

/// The units whose values some passes will fetch, in order. It is known before the first fetch, so that what comes next is brought meanwhile, and
/// each fetch is compared with it.
class Itinerary {
 public:
  void reserve(std::size_t passes) { passes_.reserve(passes); }
  void clear() {
    passes_.clear();
    pass_ = place_ = 0;
  }
  void add(std::span<const int> pass) {  ///< the units of one pass, which stay where they are
    if (!pass.empty()) passes_.push_back(pass);
  }
  /// The k-th fetch from now, 0 for the next one; -1 behind the last.
  int ahead(std::size_t k) const {
    std::size_t place = place_ + k;
    for (std::size_t pass = pass_; pass < passes_.size(); place -= passes_[pass++].size())
      if (place < passes_[pass].size()) return passes_[pass][place];
    return -1;
  }
  void advance() {
    if (++place_ < passes_[pass_].size()) return;
    place_ = 0;
    ++pass_;
  }
  bool done() const { return pass_ == passes_.size(); }

 private:
  std::vector<std::span<const int>> passes_;
  std::size_t pass_ = 0, place_ = 0;
};

}  // namespace collimate
