#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace collimate {

/// Element types of tensors.
enum class DType { f32, f64, i32, i64, u8, u64 };

constexpr std::size_t size_of(DType type) {  ///< bytes per element
  return type == DType::u8 ? 1 : type == DType::f32 || type == DType::i32 ? 4 : 8;
}
std::string_view name_of(DType type);

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() { return DType::f32; }
template <>
constexpr DType dtype_of<double>() { return DType::f64; }
template <>
constexpr DType dtype_of<std::int32_t>() { return DType::i32; }
template <>
constexpr DType dtype_of<std::int64_t>() { return DType::i64; }
template <>
constexpr DType dtype_of<std::uint8_t>() { return DType::u8; }
template <>
constexpr DType dtype_of<std::uint64_t>() { return DType::u64; }

}  // namespace collimate
