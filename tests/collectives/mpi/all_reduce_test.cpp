#include "collimate/collectives/all_reduce.hpp"

#include <cmath>
#include <limits>

#include "comm/mpi/short_messages.hpp"
#include "comm/mpi_test.hpp"
#include "support/owned.hpp"

namespace collimate {
namespace {

using test::Owned;

Communicator& ranks() { return test_world()->ranks(); }

/// Numbers whose float sum depends on the order: magnitudes over 2^16, both signs.
float term(int rank, std::int64_t i) {
  const auto h = static_cast<std::uint32_t>((rank + 1) * 2654435761u + static_cast<std::uint32_t>(i) * 40503u);
  return std::ldexp(static_cast<float>(h % 65521) - 32760.0f, static_cast<int>(h >> 28) - 8);
}

/// The promised order by recursion: split at the largest power of two below the number of terms.
float tree(int begin, int end, std::int64_t i) {
  if (end - begin == 1) return term(begin, i);
  int half = 1;
  while (half * 2 < end - begin) half *= 2;
  return tree(begin, begin + half, i) + tree(begin + half, end, i);
}

/// How many elements of a sum differ from the tree; in the room of sums of `planned` elements.
std::int64_t wrong_elements(Communicator& comm, std::int64_t n, std::int64_t planned) {
  Owned<float> data(n), room(all_reduce_room(planned, comm.size()));
  for (std::int64_t i = 0; i < n; ++i) data.values[i] = term(comm.rank(), i);
  all_reduce(comm, data.tensor(), room.tensor(), data.stream());
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < n; ++i) wrong += data.values[i] != tree(0, comm.size(), i);
  return wrong;
}

TEST(AllReduce, AddsInTheFixedTree) {
  for (const std::int64_t n : {0, 1, 2, 3, 5, 1000, 8191, 8193, 70001, 3000001})
    EXPECT_EQ(wrong_elements(ranks(), n, n), 0) << n << " elements on " << ranks().size() << " ranks";
  const auto small = all_ranks_with_short_messages(100);  // every operation is cut in pieces
  for (const std::int64_t n : {1, 7, 26, 5000, 50001}) EXPECT_EQ(wrong_elements(*small, n, n), 0) << n << " elements in short messages";
}

TEST(AllReduce, AnyTensorFitsAnyRoom) {
  for (const std::int64_t n : {1, 4096, 16384, 16385, 300007}) EXPECT_EQ(wrong_elements(ranks(), n, 1), 0) << n << " elements";
  EXPECT_EQ(all_reduce_room(1 << 30, 1), 0);
  EXPECT_EQ(all_reduce_room(1, 4), 16384);
  EXPECT_EQ(all_reduce_room(300000, 3), 200000);
  EXPECT_EQ(all_reduce_room(std::int64_t{1} << 40, 4), 1 << 20);
  if (ranks().size() == 1) return;
  Owned<float> data(1);
  EXPECT_THROW(all_reduce(ranks(), data.tensor(), Tensor(), data.stream()), Error);
}

TEST(AllReduce, TheFixedTreeIsNotTheOnlyOrder) {
  std::int64_t differs = 0;
  for (std::int64_t i = 0; i < 1000; ++i) {
    float sum = term(3, i);
    for (int rank = 2; rank >= 0; --rank) sum += term(rank, i);
    differs += sum != tree(0, 4, i);
  }
  EXPECT_GT(differs, 0) << "the test's numbers cannot tell orders apart";
}

TEST(AllReduce, FlushesDenormals) {
  Owned<float> data(std::vector<float>{1e-39f}), room(all_reduce_room(1, ranks().size()));
  all_reduce(ranks(), data.tensor(), room.tensor(), data.stream());
  EXPECT_EQ(data.values[0], ranks().size() == 1 ? 1e-39f : 0.0f);
}

// Of sparse rows, of which one rank has each and the others zeros, the bits are kept, also of -0.
TEST(AllReduce, BitsAsWholeNumbers) {
  const int size = ranks().size();
  Owned<float> data(50000), room(all_reduce_room(50000, size));
  for (std::int64_t i = ranks().rank(); i < 50000; i += size) data.values[i] = i % 3 ? term(7, i) : -0.0f;
  const auto bits = [](Owned<float>& f) { return Tensor(f.values.data(), DType::i32, {std::ssize(f.values)}, *f.device); };
  all_reduce(ranks(), bits(data), bits(room), data.stream());
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < 50000; ++i)
    wrong += i % 3 ? data.values[i] != term(7, i) : data.values[i] != 0 || !std::signbit(data.values[i]);
  EXPECT_EQ(wrong, 0);
}

TEST(AllReduce, WholeNumbersOfTheHost) {
  const int me = ranks().rank(), size = ranks().size();
  const auto device = make_cpu_device();
  constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  for (const std::size_t n : {0, 1, 69, 20000}) {
    std::vector<std::int64_t> numbers(n, me - (1LL << 40));
    std::vector<std::uint64_t> hashes(n, most - static_cast<std::uint64_t>(me));  // the sum overflows
    all_reduce(ranks(), std::span(numbers), *device);
    all_reduce(ranks(), std::span(hashes), *device);
    EXPECT_EQ(numbers, std::vector<std::int64_t>(n, size * (size - 1) / 2 - size * (1LL << 40)));
    EXPECT_EQ(hashes, std::vector<std::uint64_t>(n, std::uint64_t{0} - static_cast<std::uint64_t>(size + size * (size - 1) / 2)));
  }
}

TEST(AllReduce, SaysWhatCannotBeSummed) {
  if (ranks().size() == 1) return;
  Owned<double> data({1, 2}), room(1000);
  EXPECT_THROW(all_reduce(ranks(), data.tensor(), room.tensor(), data.stream()), Error);
  Owned<float> other(1000);
  EXPECT_THROW(all_reduce(ranks(), data.tensor(), other.tensor(), data.stream()), Error);
}

TEST(AllReduce, SendsWhatTheFormulaSays) {
  const int me = ranks().rank(), size = ranks().size();
  const auto sent = [&](std::int64_t n) {
    Owned<float> data(n), room(all_reduce_room(n, size));
    const std::int64_t before = ranks().sent_bytes();
    all_reduce(ranks(), data.tensor(), room.tensor(), data.stream());
    return ranks().sent_bytes() - before;
  };
  EXPECT_EQ(sent(100), 400 * (size - 1)) << "everything to everybody";
  const std::int64_t own = part_of(100000, me, size).count;
  EXPECT_EQ(sent(100000), 4 * (100000 - own + own * (size - 1))) << "a part to each, and the sum of its own to all";
}

}  // namespace
}  // namespace collimate
