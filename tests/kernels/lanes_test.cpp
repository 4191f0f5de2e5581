#include "kernels/cpu/lanes.hpp"

#include <algorithm>
#include <array>

#include "collimate/kernels/matmul.hpp"
#include "kernels/support.hpp"

// The order of every sum, one number after the other: what is shown here on one instruction set holds on all of them.
namespace collimate::kernels {
namespace {

using Index = std::int64_t;
using Row = std::array<float, cpu::lanes>;

Row numbers_of(cpu::Lanes v) {
  Row row;
  cpu::store(row.data(), v);
  return row;
}

/// 8 with 8, 4 with 4, 2 with 2, 1 with 1.
float tree(Row row) {
  for (std::size_t step = 8; step; step /= 2)
    for (std::size_t j = 0; j < step; ++j) row[j] += row[j + step];
  return row[0];
}

TEST(Lanes, AreSummedAsATree) {
  Host host;
  const Tensor t = host.random({cpu::lanes, cpu::lanes}, 1);
  cpu::Lanes v[cpu::lanes];
  Row expected;
  double wide = 0;
  for (Index i = 0; i < cpu::lanes; ++i) {
    v[i] = cpu::load(t.as<float>() + i * cpu::lanes);
    expected[static_cast<std::size_t>(i)] = tree(numbers_of(v[i]));
    EXPECT_EQ(cpu::sum(v[i]), expected[static_cast<std::size_t>(i)]);
    for (const float x : numbers_of(v[i])) wide += x;
    EXPECT_NEAR(cpu::sum(cpu::widen(v[i])), cpu::sum(v[i]), 1e-5);
  }
  const Row together = numbers_of(cpu::sums(v));
  EXPECT_EQ(together, expected);
  EXPECT_NEAR(tree(together), wide, 1e-4);
}

TEST(Lanes, Transpose) {
  cpu::Lanes v[cpu::lanes];
  for (Index i = 0; i < cpu::lanes; ++i) {
    Row row;
    for (std::size_t j = 0; j < row.size(); ++j) row[j] = static_cast<float>(100 * i) + static_cast<float>(j);
    v[i] = cpu::load(row.data());
  }
  cpu::transpose(v);
  for (Index i = 0; i < cpu::lanes; ++i)
    for (Index j = 0; j < cpu::lanes; ++j) EXPECT_EQ(v[i][j], static_cast<float>(100 * j + i));
}

TEST(Lanes, AreSelectedRepeatedAndLoadedInPart) {
  Host host;
  const Tensor t = host.random({cpu::lanes}, 2);
  const cpu::Lanes v = cpu::load(t.as<float>()), twos = cpu::repeated<2>(v), eights = cpu::repeated<8>(v);
  for (Index n = 0; n <= cpu::lanes; ++n) {
    const cpu::Lanes first = cpu::select(cpu::before(n), v, cpu::splat(7.0f)), part = cpu::load(t.as<float>(), n);
    for (Index j = 0; j < cpu::lanes; ++j) {
      EXPECT_EQ(first[j], j < n ? v[j] : 7.0f);
      EXPECT_EQ(part[j], j < n ? v[j] : 0.0f);
      EXPECT_EQ(twos[j], v[j % 2]);
      EXPECT_EQ(eights[j], v[j % 8]);
    }
  }
}

/// The sum over k of a(k) b(k) as a product forms it: fused, in order over parts of 256, then the parts.
template <class Left, class Right>
float product_of(Index k, const Left& a, const Right& b) {
  float total = 0;
  for (Index first = 0; first < k; first += 256) {
    float part = 0;
    for (Index i = first; i < std::min(k, first + 256); ++i) part = std::fma(a(i), b(i), part);
    total = first ? total + part : part;
  }
  return total;
}

float at(const Tensor& t, Index r, Index c) { return t.as<float>()[r * t[1] + c]; }

TEST(Linear, ElementsAreSummedInOrderWhateverTileTheyFallInto) {
  for (const auto [rows, n, k] : {std::array<Index, 3>{16, 7, 5}, {23, 97, 300}, {31, 49, 257}, {290, 33, 48}}) {
    SCOPED_TRACE(fmt::format("rows {} n {} k {}", rows, n, k));
    Host host;
    const Tensor x = host.random({rows, k}, 1), w = host.random({n, k}, 2), dy = host.random({rows, n}, 3), bias = host.random({n}, 4);
    const Tensor y = host.make({rows, n}), dx = host.make({rows, k}), dw = host.make({n, k});
    linear_forward(y, x, w, bias, Write::replace, host.stream());
    linear_backward_input(dx, dy, w, Write::replace, host.stream());
    linear_backward_weight(dw, dy, x, Write::replace, host.stream());
    for (Index r = 0; r < rows; ++r)
      for (Index j = 0; j < n; ++j)
        ASSERT_EQ(at(y, r, j),
                  product_of(k, [&](Index i) { return at(x, r, i); }, [&](Index i) { return at(w, j, i); }) + bias.as<float>()[j]);
    for (Index r = 0; r < rows; ++r)
      for (Index i = 0; i < k; ++i)
        ASSERT_EQ(at(dx, r, i), product_of(n, [&](Index j) { return at(dy, r, j); }, [&](Index j) { return at(w, j, i); }));
    for (Index j = 0; j < n; ++j)
      for (Index i = 0; i < k; ++i)
        ASSERT_EQ(at(dw, j, i), product_of(rows, [&](Index r) { return at(dy, r, j); }, [&](Index r) { return at(x, r, i); }));
  }
}

TEST(LinearDecode, SumsLaneByLaneThenAsATree) {
  for (const Index rows : {1, 2, 4, 8, 11})
    for (const Index k : {5, 80, 1000}) {
      SCOPED_TRACE(fmt::format("rows {} k {}", rows, k));
      Host host;
      const Index n = 19;
      const Tensor x = host.random({rows, k}, 1), w = host.random({n, k}, 2), bias = host.random({n}, 3), y = host.make({rows, n});
      linear_decode(y, x, w, bias, host.stream());
      for (Index r = 0; r < rows; ++r)
        for (Index j = 0; j < n; ++j) {
          Row total{};
          for (Index i = 0; i < k; ++i) {
            float& lane = total[static_cast<std::size_t>(i % cpu::lanes)];
            lane = std::fma(at(x, r, i), at(w, j, i), lane);
          }
          ASSERT_EQ(at(y, r, j), tree(total) + bias.as<float>()[j]);
        }
    }
}

}  // namespace
}  // namespace collimate::kernels
