#pragma once
#include <cstdint>

namespace collimate::rlhf {

struct KlControllerOptions {
  double beta = 0.05;     ///< coefficient of the KL penalty, the first one if it adapts
  double target = 0;      ///< KL per sample (the sum over its tokens) to steer to, in nats; 0: beta stays fixed
  double horizon = 10000; ///< samples
};

/// The coefficient of the KL penalty, fixed or adaptive (Ziegler et al. 2019, section 2.2). `beta` is its whole state.
class KlController {
 public:
  explicit KlController(const KlControllerOptions& options);
  double beta() const { return beta_; }
  /// beta *= 1 + clip(mean_kl / target - 1, -0.2, 0.2) * samples / horizon. Once per iteration: `mean_kl` is the mean over the
  /// `samples` samples of the whole batch (of all ranks) of the KL that the rewards were shaped with.
  void update(double mean_kl, std::int64_t samples);
  void restore(double beta);  ///< from a checkpoint

 private:
  KlControllerOptions options_;
  double beta_;
};

}  // namespace collimate::rlhf
