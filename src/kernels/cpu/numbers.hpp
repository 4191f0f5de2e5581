#pragma once
#include <cstdint>
#include <variant>

#include "collimate/base/bf16.hpp"

namespace collimate::kernels::cpu {

/// Where numbers rest that a kernel computes with as fp32, in either type; null where an optional operand is absent. A kernel is written
/// once, for a pointer `const auto*`, and visited.
using Numbers = std::variant<const float*, const BFloat16*>;

inline Numbers operator+(const Numbers& numbers, std::int64_t elements) {
  return std::visit([=](const auto* first) -> Numbers { return first + elements; }, numbers);
}

/// Where a kernel leaves numbers that it has computed as fp32: bf16 ones are rounded once, when they are stored.
using Results = std::variant<float*, BFloat16*>;

inline Results operator+(const Results& results, std::int64_t elements) {
  return std::visit([=](auto* first) -> Results { return first + elements; }, results);
}

inline bool present(const Numbers& numbers) {
  return std::visit([](const auto* first) { return first != nullptr; }, numbers);
}

constexpr float widened(float number) { return number; }
constexpr float widened(BFloat16 number) { return to_float(number); }

}  // namespace collimate::kernels::cpu
