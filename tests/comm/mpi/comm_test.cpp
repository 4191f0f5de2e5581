#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "collimate/comm/rank_cores.hpp"
#include "collimate/comm/process_grid.hpp"
#include "comm/mpi/short_messages.hpp"
#include "comm/mpi_test.hpp"

namespace collimate {
namespace {

/// A tensor that owns its elements.
template <class T>
struct Owned {
  explicit Owned(std::vector<T> values) : values(std::move(values)), device(make_cpu_device()) {}
  explicit Owned(std::int64_t n) : Owned(std::vector<T>(static_cast<std::size_t>(n))) {}
  Tensor tensor() { return {values.data(), dtype_of<T>(), {static_cast<std::int64_t>(values.size())}, *device}; }
  Stream& stream() { return device->stream(); }
  std::vector<T> values;
  std::unique_ptr<Device> device;
};

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

Communicator& ranks() { return test_world()->ranks(); }

/// The world's communicator again, with messages of at most 100 bytes, so that every operation is cut in pieces.
std::unique_ptr<Communicator> small_messages() {
  return all_ranks_with_short_messages(100);
}

TEST(World, KnowsItsPlace) {
  World& world = *test_world();
  EXPECT_EQ(world.rank(), ranks().rank());
  EXPECT_EQ(world.size(), ranks().size());
  EXPECT_EQ(world.nodes(), 1);
  EXPECT_EQ(world.node(), 0);
  EXPECT_EQ(world.node_size(), world.size());
  EXPECT_EQ(world.node_rank(), world.rank());
  EXPECT_FALSE(world.host().empty());
  EXPECT_THROW(World(), Error);
}

void check_all_reduce(Communicator& comm, std::int64_t n) {
  Owned<float> data(n);
  for (std::int64_t i = 0; i < n; ++i) data.values[i] = term(comm.rank(), i);
  comm.all_reduce(data.tensor(), Reduce::sum, data.stream());
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < n; ++i) wrong += data.values[i] != tree(0, comm.size(), i);
  EXPECT_EQ(wrong, 0) << n << " elements on " << comm.size() << " ranks";
}

TEST(Communicator, AllReduceSumsInTheFixedTree) {
  for (const std::int64_t n : {0, 1, 2, 3, 5, 1000, 70001, 3000001}) check_all_reduce(ranks(), n);
  const auto small = small_messages();
  for (const std::int64_t n : {1, 7, 26, 5000, 50001}) check_all_reduce(*small, n);
}

TEST(Communicator, TheFixedTreeIsNotTheOnlyOrder) {
  std::int64_t differs = 0;
  for (std::int64_t i = 0; i < 1000; ++i) {
    float sum = term(3, i);
    for (int rank = 2; rank >= 0; --rank) sum += term(rank, i);
    differs += sum != tree(0, 4, i);
  }
  EXPECT_GT(differs, 0) << "the test's numbers cannot tell orders apart";
}

TEST(Communicator, MaxMinAndTypes) {
  const int me = ranks().rank(), size = ranks().size();
  Owned<std::int64_t> whole({me, -me, (1LL << 62) + me});
  ranks().all_reduce(whole.tensor(), Reduce::max, whole.stream());
  EXPECT_EQ(whole.values, (std::vector<std::int64_t>{size - 1, 0, (1LL << 62) + size - 1}));
  for (const Reduce operation : {Reduce::min, Reduce::max}) {
    Owned<double> real({1.0 * me, me == size - 1 ? std::nan("") : 0.0, me == 0 ? std::nan("") : 0.0});
    ranks().all_reduce(real.tensor(), operation, real.stream());
    EXPECT_EQ(real.values[0], operation == Reduce::min ? 0.0 : size - 1);
    EXPECT_TRUE(std::isnan(real.values[1]) && std::isnan(real.values[2])) << "a NaN of any rank stays";
  }
  Owned<std::uint64_t> hash(std::vector<std::uint64_t>{std::numeric_limits<std::uint64_t>::max() / 4});
  ranks().all_reduce(hash.tensor(), Reduce::sum, hash.stream());
  EXPECT_EQ(hash.values[0], std::numeric_limits<std::uint64_t>::max() / 4 * static_cast<std::uint64_t>(size));
  if (size > 1) {
    Owned<std::uint8_t> bytes(std::vector<std::uint8_t>{1});
    EXPECT_THROW(ranks().all_reduce(bytes.tensor(), Reduce::sum, bytes.stream()), Error);
  }
}

TEST(Communicator, ReduceScatterGivesTheSameBitsAsAllReduce) {
  const auto small = small_messages();
  for (Communicator* comm : {&ranks(), small.get()})
    for (const std::int64_t n : {0, 1, 5, 4099}) {
      std::vector<std::int64_t> counts;  // uneven, the first one empty where there are several
      for (int rank = 0; rank < comm->size(); ++rank) counts.push_back(comm->size() > 1 ? n * rank : n);
      const std::int64_t total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
      const std::int64_t begin = std::accumulate(counts.begin(), counts.begin() + comm->rank(), std::int64_t{0});
      Owned<float> whole(total), mine(counts[comm->rank()]);
      for (std::int64_t i = 0; i < total; ++i) whole.values[i] = term(comm->rank(), i);
      comm->reduce_scatter(mine.tensor(), whole.tensor(), counts, Reduce::sum, whole.stream());
      for (std::int64_t i = 0; i < counts[comm->rank()]; ++i) ASSERT_EQ(mine.values[i], tree(0, comm->size(), begin + i));
    }
}

TEST(Communicator, AllGatherOfUnevenPieces) {
  const auto small = small_messages();
  for (Communicator* comm : {&ranks(), small.get()})
    for (const bool in_place : {false, true}) {
      std::vector<std::int64_t> counts;
      for (int rank = 0; rank < comm->size(); ++rank) counts.push_back(rank == 1 ? 0 : 10 + 7 * rank);
      const std::int64_t total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
      const std::int64_t begin = std::accumulate(counts.begin(), counts.begin() + comm->rank(), std::int64_t{0});
      Owned<std::int64_t> all(total), piece(counts[comm->rank()]);
      const Tensor mine = in_place ? all.tensor().slice(begin, counts[comm->rank()]) : piece.tensor();
      std::iota(mine.as<std::int64_t>(), mine.as<std::int64_t>() + mine.count(), begin);
      comm->all_gather(all.tensor(), mine, counts, all.stream());
      for (std::int64_t i = 0; i < total; ++i) ASSERT_EQ(all.values[i], i);
    }
}

TEST(Communicator, AllToAllOfVariableCounts) {
  const auto small = small_messages();
  for (Communicator* comm : {&ranks(), small.get()}) {
    const int me = comm->rank(), size = comm->size();
    std::vector<std::int64_t> send_counts, receive_counts;
    std::vector<std::int32_t> sent;
    for (int peer = 0; peer < size; ++peer) {
      send_counts.push_back((me + 1) * peer * 13);
      receive_counts.push_back((peer + 1) * me * 13);
      for (int i = 0; i < send_counts.back(); ++i) sent.push_back(1000000 * me + 1000 * peer + i);
    }
    Owned<std::int32_t> out(sent), in(std::accumulate(receive_counts.begin(), receive_counts.end(), std::int64_t{0}));
    comm->all_to_all(in.tensor(), receive_counts, out.tensor(), send_counts, in.stream());
    std::size_t at = 0;
    for (int peer = 0; peer < size; ++peer)
      for (int i = 0; i < receive_counts[peer]; ++i) ASSERT_EQ(in.values[at++], 1000000 * peer + 1000 * me + i);
  }
}

TEST(Communicator, SendReceiveBroadcast) {
  const auto small = small_messages();
  for (Communicator* comm : {&ranks(), small.get()}) {
    const int me = comm->rank(), size = comm->size();
    Owned<float> data(1000);
    if (me == 0) std::iota(data.values.begin(), data.values.end(), 1.0f);
    if (me > 0) comm->receive(data.tensor(), me - 1, data.stream());
    if (me + 1 < size) comm->send(data.tensor(), me + 1, data.stream());
    EXPECT_EQ(data.values[999], 1000.0f);
    for (int root = 0; root < size; ++root) {
      Owned<double> value(std::vector<double>(50, me == root ? root + 0.5 : 0.0));
      comm->broadcast(value.tensor(), root, value.stream());
      EXPECT_EQ(value.values[49], root + 0.5);
    }
    comm->barrier();
  }
}

TEST(Communicator, HostHelpers) {
  const int me = ranks().rank(), size = ranks().size();
  const auto all = gather_all(ranks(), std::vector<std::int32_t>(static_cast<std::size_t>(me), me));
  for (int rank = 0; rank < size; ++rank) EXPECT_EQ(all[rank], std::vector<std::int32_t>(static_cast<std::size_t>(rank), rank));
  EXPECT_EQ(gather_all(ranks(), 0.5 * me)[size - 1], 0.5 * (size - 1));
  const auto names = gather_all(ranks(), std::string(static_cast<std::size_t>(me), 'x'));
  EXPECT_EQ(names[size - 1], std::string(static_cast<std::size_t>(size - 1), 'x'));
  std::string text = me == size - 1 ? "from the last" : "";
  broadcast(ranks(), text, size - 1);
  EXPECT_EQ(text, "from the last");
  std::vector<double> values(me == 0 ? 3 : 10, me);
  broadcast(ranks(), values);
  EXPECT_EQ(values, (std::vector<double>{0, 0, 0}));
}

std::string agreed_sentence(const std::function<void()>& step) {
  try {
    agree(ranks(), step);
  } catch (const AgreedError& error) {
    return fmt::format("{} {}", static_cast<int>(error.code()), error.what());
  }
  return "fine";
}

TEST(Agree, OneFailingRankStopsAllWithOneSentence) {
  const int me = ranks().rank(), size = ranks().size();
  EXPECT_EQ(agreed_sentence([] {}), "fine");
  const std::string sentence = agreed_sentence([&] {
    if (me >= 1) fail_with(ExitCode::does_not_fit, "rank {} has no room", me);
  });
  EXPECT_EQ(sentence, size == 1 ? "fine" : "3 [rank 1] rank 1 has no room");
  EXPECT_EQ(agreed_sentence([&] { if (me == size - 1) throw std::runtime_error("foreign"); }),
            size == 1 ? "1 foreign" : fmt::format("1 [rank {}] foreign", size - 1));
  EXPECT_EQ(agree(ranks(), [&] { return me * 10; }), me * 10);
  ranks().barrier();  // nobody was left behind
}

TEST(ProcessGrid, LinesAlongTheAxes) {
  World& world = *test_world();
  std::vector<GridShape> shapes = {{1, world.size(), 1}, {world.size(), 1, 1}, {1, 1, world.size()}};
  if (world.size() == 4) shapes.insert(shapes.end(), {{2, 2, 1}, {2, 1, 2}, {1, 2, 2}});
  for (const GridShape& shape : shapes) {
    const ProcessGrid grid(world, shape);
    EXPECT_EQ(rank_of(grid.coord(), shape), world.rank());
    for (const Axis axis : {Axis::tensor, Axis::data, Axis::pipeline}) {
      Communicator& line = grid.along(axis);
      EXPECT_EQ(line.size(), shape.along(axis));
      EXPECT_EQ(line.rank(), grid.coord().along(axis));
      const std::vector<int> members = gather_all(line, world.rank());
      for (int i = 0; i < line.size(); ++i) {
        GridCoord coord = grid.coord();
        (axis == Axis::tensor ? coord.tensor : axis == Axis::data ? coord.data : coord.pipeline) = i;
        EXPECT_EQ(members[i], rank_of(coord, shape));
      }
    }
  }
  EXPECT_EQ(ProcessGrid(world, {1, 0, 1}).shape().data, world.size());
  EXPECT_THROW(ProcessGrid(world, {1, world.size() + 1, 1}), Error);
}

TEST(RankCores, EveryRankIsListed) {
  const auto places = share_cores(*test_world());
  ASSERT_EQ(static_cast<int>(places.size()), ranks().size());
  for (const RankCores& place : places) {
    EXPECT_EQ(place.host, test_world()->host());
    EXPECT_FALSE(place.cores.empty());
    EXPECT_EQ(place.threads, 1);  // ctest sets OMP_NUM_THREADS=1
  }
  EXPECT_NE(cores_report(places).find(ranks().size() == 1 ? "1 rank on 1 node" : "ranks on 1 node"), std::string::npos);
}

TEST(MpiErrors, BecomeSentences) {
  Owned<float> data(1);
  try {
    ranks().broadcast(data.tensor(), ranks().size() + 5, data.stream());
    FAIL() << "a broadcast from a rank that is none succeeded";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("MPI_Bcast failed on rank"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace collimate

int main(int argc, char** argv) { return collimate::run_mpi_tests(argc, argv); }
