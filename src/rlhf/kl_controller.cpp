#include "collimate/rlhf/kl_controller.hpp"

#include <algorithm>
#include <cmath>

#include "collimate/base/error.hpp"

namespace collimate::rlhf {

KlController::KlController(const KlControllerOptions& options) : options_(options), beta_(options.beta) {
  require(std::isfinite(options.beta) && options.beta >= 0, "the KL coefficient is {}; give 0 or a positive number", options.beta);
  require(std::isfinite(options.target) && options.target >= 0, "the KL target is {} nats; give 0 (fixed coefficient) or a positive number",
          options.target);
  require(options.target == 0 || options.horizon > 0, "the KL horizon is {} samples; give a positive number", options.horizon);
}

void KlController::update(double mean_kl, std::int64_t samples) {
  require(std::isfinite(mean_kl), "the mean KL to the reference is {}; the KL coefficient cannot follow it", mean_kl);
  if (options_.target == 0) return;
  const double error = std::clamp(mean_kl / options_.target - 1, -0.2, 0.2);
  beta_ *= 1 + error * static_cast<double>(samples) / options_.horizon;
  require(beta_ > 0, "the KL coefficient fell to {}: {} samples per iteration are too many for a horizon of {}; raise the horizon", beta_,
          samples, options_.horizon);
}

void KlController::restore(double beta) {
  require(std::isfinite(beta) && beta >= 0, "the checkpoint holds a KL coefficient of {}", beta);
  beta_ = beta;
}

}  // namespace collimate::rlhf
