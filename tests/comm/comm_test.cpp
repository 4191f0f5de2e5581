#include <gmock/gmock.h>

#include <map>

#include "collimate/comm/launcher.hpp"
#include "collimate/comm/process_grid.hpp"
#include "collimate/comm/rank_cores.hpp"

namespace collimate {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(Grid, TensorIsFastestAndPipelineSlowest) {
  const GridShape shape{2, 3, 4};
  EXPECT_EQ(coord_of(0, shape), (GridCoord{0, 0, 0}));
  EXPECT_EQ(coord_of(1, shape), (GridCoord{1, 0, 0}));
  EXPECT_EQ(coord_of(2, shape), (GridCoord{0, 1, 0}));
  EXPECT_EQ(coord_of(6, shape), (GridCoord{0, 0, 1}));
  for (int rank = 0; rank < 24; ++rank) EXPECT_EQ(rank_of(coord_of(rank, shape), shape), rank);
}

std::string refusal(GridShape shape, int ranks, int shards = 0, std::int64_t most_stages = 0) {
  try {
    complete(shape, ranks, shards, most_stages);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Grid, CompletesOrNamesTheNearestShapes) {
  EXPECT_EQ(complete({2, 0, 1}, 8), (GridShape{2, 4, 1}));
  EXPECT_EQ(complete({0, 0, 0}, 3), (GridShape{1, 3, 1}));
  EXPECT_EQ(complete({2, 2, 2}, 8), (GridShape{2, 2, 2}));
  EXPECT_THAT(refusal({2, 3, 1}, 4), AllOf(HasSubstr("2 x 3 x 1"), HasSubstr("needs 6 ranks, but the job has 4"), HasSubstr("2 x 2 x 1")));
  EXPECT_THAT(refusal({1, 4, 1}, 3), HasSubstr("1 x 3 x 1"));
  EXPECT_THAT(refusal({2, 0, 1}, 3), HasSubstr("but the job has 3"));
  EXPECT_THAT(refusal({2, 1, 2}, 7), AllOf(HasSubstr("start 4"), HasSubstr("to 1 x 7 x 1"), Not(HasSubstr(" x 7 (")))) << "no more stages than wished";
  EXPECT_THAT(refusal({1, 1, 5}, 8, 4, 4), AllOf(Not(HasSubstr("start")), HasSubstr("1 x 2 x 4"), Not(HasSubstr(" x 8 ("))));
  EXPECT_THAT(refusal({3, 2, 1}, 4, 4, 4), AllOf(Not(HasSubstr("start")), HasSubstr("2 x 2 x 1")));
  EXPECT_THAT(refusal({1, 1, 8}, 8, 4, 4), AllOf(HasSubstr("at most 4 stages"), HasSubstr("1 x 2 x 4")));
  EXPECT_THAT(refusal({-1, 1, 1}, 1), HasSubstr("cannot have the shape"));
}

TEST(Parts, CoverTheRangeEvenly) {
  for (const std::int64_t n : {0LL, 1LL, 5LL, 12LL, 1LL << 40})
    for (int ranks = 1; ranks <= 7; ++ranks) {
      std::int64_t end = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const Part part = part_of(n, rank, ranks);
        EXPECT_EQ(part.begin, end);
        EXPECT_LE(part.count, n / ranks + 1);
        EXPECT_GE(part.count, n / ranks);
        end += part.count;
      }
      EXPECT_EQ(end, n);
    }
}

TEST(SingleCommunicator, CopiesAndNothingElse) {
  const auto single = make_single_communicator();
  const auto device = make_cpu_device();
  std::vector<float> from = {1, 2, 3}, to(3);
  const Tensor source(from.data(), DType::f32, {3}, *device), target(to.data(), DType::f32, {3}, *device);
  single->all_gather(target, source, device->stream());
  EXPECT_EQ(to, from);
  to.assign(3, 0);
  const Message send{source, 0}, receive{target, 0};
  single->exchange({&send, 1}, {&receive, 1}, device->stream());
  EXPECT_EQ(to, from);
  EXPECT_EQ(gather_all(*single, std::vector<int>{4, 5}), (std::vector<std::vector<int>>{{4, 5}}));
  EXPECT_THROW(agree(*single, [] { fail("no"); }), AgreedError);
  EXPECT_THROW(single->send(source, 0, device->stream()), Error);
}

TEST(RankCores, SharingReportAndWarnings) {
  std::vector<RankCores> places = {
      {0, "a", {0, 1}, 2, 8}, {0, "a", {0, 1}, 2, 8}, {0, "a", {2, 3}, 2, 8}, {1, "b", {0, 1}, 3, 2}};
  EXPECT_EQ(ranks_sharing(places, 0), 2);
  EXPECT_EQ(ranks_sharing(places, 2), 1);
  EXPECT_EQ(ranks_sharing(places, 3), 1);  // the same core numbers on another node
  const std::string report = cores_report(places);
  EXPECT_THAT(report, AllOf(HasSubstr("4 ranks on 2 nodes"), HasSubstr("ranks 0-1: 2 threads on cores 0-1")));
  EXPECT_THAT(report, AllOf(HasSubstr("rank 2: 2 threads on cores 2-3"), HasSubstr("node 0 (a): 3 ranks may use 4 of 8 cores")));
  const auto warnings = cores_warnings(places);
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_THAT(warnings[0], AllOf(HasSubstr("4 threads of ranks 0-1 share 2 cores (0-1)"), HasSubstr("OMP_NUM_THREADS")));
  EXPECT_THAT(warnings[1], HasSubstr("on b the 3 threads of rank 3 share 2 cores"));
  for (RankCores& place : places) place.threads = 1;
  EXPECT_TRUE(cores_warnings(places).empty());
}

TEST(RankCores, RanksShareTheQuotaOfTheirControlGroup) {
  std::vector<RankCores> places = {
      {0, "a", {0}, 1, 8, 3, "/job"}, {0, "a", {1}, 1, 8, 3, "/job"}, {0, "a", {2}, 1, 8, 0, ""}, {1, "b", {0}, 1, 2, 3, "/job"}};
  EXPECT_EQ(quota_share(places, 0), 1.5);
  EXPECT_EQ(quota_share(places, 2), 0);
  EXPECT_EQ(quota_share(places, 3), 3);
  EXPECT_TRUE(cores_warnings(places).empty());
  EXPECT_THAT(cores_report(places), HasSubstr("rank 0: 1 thread on core 0; the CPU quota of the control group /job is 3 cores"));
  EXPECT_THAT(cores_report(places), HasSubstr("rank 2: 1 thread on core 2\n"));
  places[0].quota = places[1].quota = 1.5;
  const auto warnings = cores_warnings(places);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_THAT(warnings[0], AllOf(HasSubstr("on a the 2 threads of ranks 0-1 may use the time of 1.5 cores"), HasSubstr("control group /job")));
  EXPECT_TRUE(cores_warnings({{0, "a", {0}, 1, 8, 0.5, "/job"}}).empty());  // fewer than one thread there is none
}

TEST(Launcher, CopiesWithoutMpiRanksAreTold) {
  using Variables = std::map<std::string, std::string>;
  const auto said = [](const Variables& variables) {
    return missing_ranks([&](const char* name) {
      const auto found = variables.find(name);
      return found == variables.end() ? nullptr : found->second.c_str();
    });
  };
  EXPECT_EQ(said({}), "");
  EXPECT_EQ(said({{"SLURM_NTASKS", "1"}}), "");
  EXPECT_THAT(said({{"SLURM_JOB_ID", "7"}, {"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "2"}}),
              AllOf(HasSubstr("SLURM_NTASKS = 4, but MPI knows of one rank"), HasSubstr("--mpi=pmix"), HasSubstr("batch script lacks mpirun")));
  EXPECT_THAT(said({{"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_NTASKS", "4"}}), HasSubstr("SLURM_STEP_NUM_TASKS = 2"));
  EXPECT_EQ(said({{"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_NTASKS", "4"}}), "");          // srun -n 1 in a job of four
  EXPECT_EQ(said({{"OMPI_COMM_WORLD_SIZE", "1"}, {"SLURM_NTASKS", "4"}}), "");          // mpirun -n 1
  EXPECT_THAT(said({{"PMI_SIZE", "4"}, {"SLURM_NTASKS", "4"}}), HasSubstr("PMI_SIZE = 4"));
  EXPECT_THAT(said({{"OMPI_COMM_WORLD_SIZE", "2"}}), HasSubstr("of the MPI library that it was built with"));
}

}  // namespace
}  // namespace collimate
