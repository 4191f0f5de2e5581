#include "comm/reduction.hpp"

#include <immintrin.h>

namespace collimate {
namespace {

/// Flush-to-zero and denormals-are-zero for a scope.
class FlushDenormals {
 public:
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
  ~FlushDenormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
};

template <class T>
void join(T* a, const T* b, std::int64_t count, Reduce operation) {
  // A NaN in a stays, because no comparison with it holds; a NaN in b is taken because it differs from itself.
  switch (operation) {
    case Reduce::sum:
      for (std::int64_t i = 0; i < count; ++i) a[i] = a[i] + b[i];
      return;
    case Reduce::max:
      for (std::int64_t i = 0; i < count; ++i) a[i] = b[i] > a[i] || b[i] != b[i] ? b[i] : a[i];
      return;
    case Reduce::min:
      for (std::int64_t i = 0; i < count; ++i) a[i] = b[i] < a[i] || b[i] != b[i] ? b[i] : a[i];
      return;
  }
}

template <class T>
void reduce_typed(std::span<void* const> terms, std::int64_t count, Reduce operation) {
  constexpr std::int64_t block = 16384 / sizeof(T);  // the whole tree of a block runs inside the first-level cache
  for (std::int64_t begin = 0; begin < count; begin += block)
    for (std::size_t distance = 1; distance < terms.size(); distance *= 2)
      for (std::size_t i = 0; i + distance < terms.size(); i += 2 * distance)
        join(static_cast<T*>(terms[i]) + begin, static_cast<const T*>(terms[i + distance]) + begin, std::min(block, count - begin),
             operation);
}

}  // namespace

void reduce_terms(std::span<void* const> terms, std::int64_t count, DType dtype, Reduce operation) {
  const FlushDenormals flush;
  switch (dtype) {
    case DType::f32: return reduce_typed<float>(terms, count, operation);
    case DType::f64: return reduce_typed<double>(terms, count, operation);
    case DType::i32: return reduce_typed<std::int32_t>(terms, count, operation);
    case DType::i64: return reduce_typed<std::int64_t>(terms, count, operation);
    case DType::u64: return reduce_typed<std::uint64_t>(terms, count, operation);
    default: fail_with(ExitCode::failure, "{} tensors cannot be reduced", name_of(dtype));
  }
}

}  // namespace collimate
