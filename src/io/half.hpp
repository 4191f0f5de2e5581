#pragma once
#include <cstdint>

namespace collimate {

// IEEE binary16. The conversion to it rounds to nearest even; what is too large becomes infinite. bfloat16: base/bf16.hpp.
float from_half(std::uint16_t half);
std::uint16_t to_half(float value);

}  // namespace collimate
