#pragma once
#include <cstdint>
#include <string>

namespace collimate {

// IEEE binary16 and bfloat16. Conversions to them round to nearest even; what is too large becomes infinite.
float from_half(std::uint16_t half);
float from_brain(std::uint16_t brain);
std::uint16_t to_half(float value);
std::uint16_t to_brain(float value);

}  // namespace collimate
