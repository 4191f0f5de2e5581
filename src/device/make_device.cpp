#include <cstdlib>

#include "collimate/device/strict_device.hpp"

namespace collimate {

std::unique_ptr<Device> make_device() {
  const char* const named = std::getenv("COLLIMATE_DEVICE");
  const std::string text = named ? named : "cpu";
  return text == "cpu" || text.empty() ? make_cpu_device() : make_strict_device(strict_options(text));
}

}  // namespace collimate
