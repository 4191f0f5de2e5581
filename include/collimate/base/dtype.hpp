#pragma once
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>

#include "collimate/base/bf16.hpp"

namespace collimate {

/// Element types of tensors. A switch over them names every one and has no `default`, so that a new type does not compile before each
/// place has decided about it.
enum class DType { f32, bf16, f64, i32, i64, u8, u64 };
constexpr DType dtypes[] = {DType::f32, DType::bf16, DType::f64, DType::i32, DType::i64, DType::u8, DType::u64};  ///< all of them

constexpr std::size_t size_of(DType type) {  ///< bytes per element
  switch (type) {
    case DType::u8: return 1;
    case DType::bf16: return 2;
    case DType::f32:
    case DType::i32: return 4;
    case DType::f64:
    case DType::i64:
    case DType::u64: return 8;
  }
  return 0;  // no type
}
static_assert(size_of(static_cast<DType>(std::size(dtypes))) == 0, "a type is not in dtypes");
std::string_view name_of(DType type);

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() { return DType::f32; }
template <>
constexpr DType dtype_of<BFloat16>() { return DType::bf16; }
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
