#include "collimate/kernels/embedding.hpp"

#include "kernels/support.hpp"

namespace collimate::kernels {
namespace {

using Index = std::int64_t;

TEST(Embedding, GathersAndScattersAShard) {
  Host host;
  constexpr Index columns = 83, entries = 5, first = 2, rows = 300;
  std::mt19937 engine(1);
  std::vector<std::int32_t> ids;
  for (Index r = 0; r < rows; ++r) ids.push_back(static_cast<std::int32_t>(engine() % 10) - 1);
  const Tensor tokens = host.of(ids), table = host.random({entries, columns}, 2), y = host.filled({rows, columns}, 9.0f);
  const Tensor sum = host.random({rows, columns}, 4), before = host.copy(sum);
  const Tensor dy = host.random({rows, columns}, 3), dtable = host.filled({entries, columns}, 1.0f);
  std::vector<double> gradient(entries * columns, 1.0);
  embedding_forward(y, table, tokens, first, host.stream());
  embedding_add(sum, table, host.of(std::vector<std::int32_t>(rows, 3)), host.stream());
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; ++c) {
      const Index entry = ids[r] - first;
      const bool here = ids[r] >= 0 && entry >= 0 && entry < entries;
      ASSERT_EQ(y.as<float>()[r * columns + c], here ? table.as<float>()[entry * columns + c] : 9.0f);
      ASSERT_EQ(sum.as<float>()[r * columns + c], before.as<float>()[r * columns + c] + table.as<float>()[3 * columns + c]);
      if (here) gradient[entry * columns + c] += dy.as<float>()[r * columns + c];
    }
  embedding_backward(dtable, dy, tokens, first, host.stream());
  expect_near(dtable, gradient, 1e-5);
  expect_same_bits_for_all_threads([&] {
    const Tensor t = host.filled({entries, columns}, 1.0f);
    embedding_backward(t, dy, tokens, first, host.stream());
    return t;
  });
}

TEST(Embedding, LeavesPaddingRowsAlone) {
  Host host;
  const Tensor table = host.random({4, 16}, 1), y = host.filled({2, 16}, 5.0f), none = host.of(std::vector<std::int32_t>{-1, -1});
  embedding_forward(y, table, none, 0, host.stream());
  embedding_add(y, table, none, host.stream());
  expect_near(y, std::vector<double>(32, 5.0), 0);
  EXPECT_THROW(embedding_forward(host.make({2, 17}), table, none, 0, host.stream()), Error);
  EXPECT_THROW(embedding_backward(table, y, host.of(std::vector<std::int64_t>{1, 2}), 0, host.stream()), Error);
}

}  // namespace
}  // namespace collimate::kernels
