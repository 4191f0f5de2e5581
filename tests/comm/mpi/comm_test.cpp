#include <numeric>

#include "collimate/comm/rank_cores.hpp"
#include "collimate/comm/process_grid.hpp"
#include "comm/mpi/short_messages.hpp"
#include "comm/mpi_test.hpp"
#include "support/owned.hpp"

namespace collimate {
namespace {

using test::Owned;

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

// Rank r sends rank p messages of 0, 13, 26 ... 13 (r + 1) p elements; also itself.
TEST(Communicator, ExchangeOfManyMessages) {
  const auto small = small_messages();
  for (Communicator* comm : {&ranks(), small.get()}) {
    const int me = comm->rank(), size = comm->size();
    std::vector<std::unique_ptr<Owned<std::int32_t>>> sent, received;
    std::vector<Message> sends, receives;
    for (int peer = 0; peer < size; ++peer) {
      for (int part = 0; part <= (me + 1) * peer; ++part) {
        Owned<std::int32_t>& data = *sent.emplace_back(std::make_unique<Owned<std::int32_t>>(13 * part));
        for (int i = 0; i < 13 * part; ++i) data.values[i] = 1000000 * me + 10000 * peer + 100 * part + i % 100;
        sends.push_back({data.tensor(), peer});
      }
      for (int part = 0; part <= (peer + 1) * me; ++part)
        receives.push_back({received.emplace_back(std::make_unique<Owned<std::int32_t>>(13 * part))->tensor(), peer});
    }
    comm->exchange(sends, receives, received[0]->stream());
    std::size_t at = 0;
    for (int peer = 0; peer < size; ++peer)
      for (int part = 0; part <= (peer + 1) * me; ++part, ++at)
        for (int i = 0; i < 13 * part; ++i) ASSERT_EQ(received[at]->values[i], 1000000 * peer + 10000 * me + 100 * part + i % 100);
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
