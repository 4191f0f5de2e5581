#pragma once
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "collimate/kernels/ragged.hpp"

namespace collimate::kernels {

/// Tensors on the CPU for one test.
class Host {
 public:
  Tensor make(Shape shape, DType dtype = DType::f32) {
    buffers_.emplace_back(*device_, static_cast<std::size_t>(shape.count()) * size_of(dtype) + 64, Memory::device);
    return {buffers_.back().data(), dtype, shape, *device_};
  }
  Tensor filled(Shape shape, float value) {
    const Tensor t = make(shape);
    std::fill_n(t.as<float>(), t.count(), value);
    return t;
  }
  /// Normal numbers with the given standard deviation.
  Tensor random(Shape shape, unsigned seed, float deviation = 1.0f) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal(0.0f, deviation);
    const Tensor t = make(shape);
    for (std::int64_t i = 0; i < t.count(); ++i) t.as<float>()[i] = normal(engine);
    return t;
  }
  /// Normal numbers as bf16; here and there a subnormal one and a zero.
  Tensor random_bf16(Shape shape, unsigned seed, float deviation = 1.0f) {
    const Tensor normal = random(shape, seed, deviation), t = make(shape, DType::bf16);
    for (std::int64_t i = 0; i < t.count(); ++i) t.as<BFloat16>()[i] = to_bf16(normal.as<float>()[i]);
    for (std::int64_t i = 5; i < t.count(); i += 97) t.as<BFloat16>()[i].bits = i % 2 ? 0x8041 : 0x8000;
    return t;
  }
  /// The same numbers as f32.
  Tensor widened(const Tensor& from) {
    const Tensor t = make(from.shape());
    for (std::int64_t i = 0; i < t.count(); ++i) t.as<float>()[i] = to_float(from.as<BFloat16>()[i]);
    return t;
  }
  template <class T>
  Tensor of(const std::vector<T>& values) {
    const Tensor t = make({static_cast<std::int64_t>(values.size())}, dtype_of<T>());
    std::copy(values.begin(), values.end(), t.as<T>());
    return t;
  }
  Ragged index(const std::vector<std::int32_t>& numbers) {
    const Tensor t = of(numbers);
    return {{t.as<std::int32_t>(), numbers.size()}, t};
  }
  Tensor copy(const Tensor& from) {
    const Tensor t = make(from.shape(), from.dtype());
    if (from.bytes()) std::memcpy(t.data(), from.data(), from.bytes());
    return t;
  }
  Stream& stream() { return device_->stream(); }

 private:
  std::unique_ptr<Device> device_ = make_cpu_device();
  std::vector<Buffer> buffers_;
};

inline std::vector<double> doubles(const Tensor& t) { return {t.as<float>(), t.as<float>() + t.count()}; }

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && (a.bytes() == 0 || std::memcmp(a.data(), b.data(), a.bytes()) == 0);
}

/// |got - expected| <= tolerance * (1 + |expected|) for every element.
inline void expect_near(const Tensor& got, const std::vector<double>& expected, double tolerance, const char* what = "") {
  ASSERT_EQ(static_cast<std::size_t>(got.count()), expected.size()) << what;
  int shown = 0;
  for (std::int64_t i = 0; i < got.count() && shown < 5; ++i) {
    const double g = got.as<float>()[i], e = expected[static_cast<std::size_t>(i)];
    if (!(std::abs(g - e) <= tolerance * (1 + std::abs(e)))) {
      ADD_FAILURE() << what << " element " << i << ": " << g << " instead of " << e;
      ++shown;
    }
  }
}

/// Central differences of loss(x) in fp64.
template <class Loss>
std::vector<double> central_differences(std::vector<double> x, const Loss& loss, double step = 1e-5) {
  std::vector<double> gradient(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double kept = x[i];
    x[i] = kept + step;
    const double up = loss(x);
    x[i] = kept - step;
    gradient[i] = (up - loss(x)) / (2 * step);
    x[i] = kept;
  }
  return gradient;
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double total = 0;
  for (std::size_t i = 0; i < a.size(); ++i) total += a[i] * b[i];
  return total;
}

/// Runs compute() (which returns a tensor of its own) with 1, 2 and 3 threads and expects the same bits.
template <class Compute>
void expect_same_bits_for_all_threads(const Compute& compute) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  const Tensor one = compute();
  for (const int threads : {2, 3}) {
    omp_set_num_threads(threads);
    EXPECT_TRUE(same_bits(one, compute())) << threads << " threads";
  }
  omp_set_num_threads(before);
}

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

}  // namespace collimate::kernels
