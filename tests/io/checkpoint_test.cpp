#include "collimate/io/checkpoint.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <csignal>
#include <cstring>
#include <numeric>
#include <random>
#include <set>

#include "io/scratch.hpp"

namespace collimate {
namespace {

namespace fs = std::filesystem;
using test::bytes_of;
using test::put;
using test::refusal;
using test::Scratch;

constexpr std::int64_t large = (std::int64_t{1} << 20) + 12345;  // more than one checksum block

float weight(std::int64_t i) { return static_cast<float>(i % 10007) / 3 - 1000; }
double moment(std::int64_t i) { return static_cast<double>(i) / 7; }

template <class T, class Value>
std::vector<T> slice(std::int64_t begin, std::int64_t end, Value value) {
  std::vector<T> out;
  for (std::int64_t i = begin; i < end; ++i) out.push_back(static_cast<T>(value(i)));
  return out;
}

std::int64_t cut(std::int64_t count, int rank, int ranks) { return count * rank / ranks; }

/// Writes rank `rank`'s share of three tensors, without publishing.
void write_part(CheckpointWriter& writer, int rank, int ranks, double shift = 0) {
  const auto share = [&](std::int64_t count) { return std::pair{cut(count, rank, ranks), cut(count, rank + 1, ranks)}; };
  const auto [w, w_end] = share(large);
  writer.write("block.0.up.weight", {large}, w, std::span<const float>(slice<float>(w, w_end, weight)));
  const auto [m, m_end] = share(35);
  writer.write("adam.moment", {5, 7}, m, std::span<const double>(slice<double>(m, m_end, [&](auto i) { return moment(i) + shift; })));
  const std::vector<std::int64_t> cursor = rank == 0 ? std::vector<std::int64_t>{-7} : std::vector<std::int64_t>{};
  writer.write("cursor", {1}, 0, std::span<const std::int64_t>(cursor));
  writer.attribute("{\"host\": " + std::to_string(rank) + "}");
  writer.close_part();
}

void write_checkpoint(const std::string& folder, int ranks, double shift = 0) {
  std::vector<std::unique_ptr<CheckpointWriter>> writers;
  for (int rank = 0; rank < ranks; ++rank) writers.push_back(std::make_unique<CheckpointWriter>(folder, rank, ranks));
  for (int rank = 0; rank < ranks; ++rank) write_part(*writers[static_cast<std::size_t>(rank)], rank, ranks, shift);
  writers[0]->publish("{\"step\": 3, \"rate\": 0.1}");
}

double first_moment(const std::string& folder) {
  double value = 0;
  CheckpointReader(folder).read("adam.moment", 0, 1, &value);
  return value;
}

std::size_t entries(const std::string& folder) { return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), {})); }

TEST(Checkpoint, WrittenByThreeRanksIsReadInAnyRanges) {
  const Scratch scratch;
  for (const int ranks : {1, 3, 40}) {  // 40 ranks: shares of adam.moment are 0 or 1
    const std::string folder = scratch / ("c" + std::to_string(ranks));
    write_checkpoint(folder, ranks);
    EXPECT_FALSE(fs::exists(folder + ".partial"));
    EXPECT_EQ(entries(folder), static_cast<std::size_t>(ranks) + 1);
    const CheckpointReader reader(folder);
    EXPECT_EQ(reader.meta(), R"({"step":3,"rate":0.1})");
    const std::vector<CheckpointTensor> expected{
        {"adam.moment", {5, 7}, DType::f64}, {"block.0.up.weight", {large}, DType::f32}, {"cursor", {1}, DType::i64}};
    EXPECT_EQ(reader.tensors(), expected);
    EXPECT_EQ(reader.attributes().back(), "{\"host\": " + std::to_string(ranks - 1) + "}");
    std::vector<float> all(large);
    reader.read("block.0.up.weight", 0, large, all.data());
    EXPECT_EQ(all, slice<float>(0, large, weight));
    std::mt19937 random(1);
    for (int i = 0; i < 40; ++i) {
      const std::int64_t begin = random() % large, count = random() % std::min<std::int64_t>(large - begin + 1, i % 2 ? 100 : large);
      std::vector<float> part(static_cast<std::size_t>(count));
      reader.read("block.0.up.weight", begin, count, part.data());
      EXPECT_EQ(std::memcmp(part.data(), all.data() + begin, part.size() * sizeof(float)), 0) << begin << " " << count;
    }
    std::vector<double> moments(35);
    for (std::int64_t i = 0; i < 35; ++i) reader.read("adam.moment", i, 1, &moments[static_cast<std::size_t>(i)]);
    EXPECT_EQ(moments, slice<double>(0, 35, moment));
    std::int64_t cursor = 0;
    reader.read("cursor", 0, 1, &cursor);
    EXPECT_EQ(cursor, -7);
  }
}

// Whatever byte of a part is changed: all values are right, or it is said to be damaged.
TEST(Checkpoint, AChangedByteIsDamageAndNothingElse) {
  const Scratch scratch;
  const std::string folder = scratch / "c", part = folder + "/part-00000.h5";
  CheckpointWriter writer(folder, 0, 1);
  const std::vector<float> values = slice<float>(0, 6, weight);
  writer.write("w", {2, 3}, 0, std::span<const float>(values));
  writer.attribute("{}");
  writer.close_part();
  writer.publish("{}");
  const std::string good = bytes_of(part);
  int damaged = 0;
  for (std::size_t at = 0; at < good.size(); at += 3) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (at % 2 ? 0x01 : 0xff));
    put(part, bad);
    try {
      const CheckpointReader reader(folder);
      reader.verify();
      std::vector<float> read(6);
      reader.read("w", 0, 6, read.data());
      EXPECT_EQ(read, values) << "byte " << at;
    } catch (const Error& error) {
      ++damaged;
      EXPECT_SAYS(std::string(error.what()), "is damaged");
      EXPECT_SAYS(std::string(error.what()), "use an older checkpoint");
    }
  }
  EXPECT_GT(damaged, 30);
}

TEST(Checkpoint, RefusesQuestionsThatDoNotFit) {
  const Scratch scratch;
  write_checkpoint(scratch / "c", 2);
  const CheckpointReader reader(scratch / "c");
  float f = 0;
  double d = 0;
  EXPECT_SAYS(refusal([&] { reader.read("nothing", 0, 1, &f); }), "holds no tensor nothing");
  EXPECT_SAYS(refusal([&] { reader.read("adam.moment", 0, 1, &f); }), "holds the tensor adam.moment as f64, not as f32");
  EXPECT_SAYS(refusal([&] { reader.read("adam.moment", 30, 6, &d); }), "elements 30 to 35 were asked for");
  EXPECT_THROW(reader.read("adam.moment", -1, 1, &d), Error);
  EXPECT_TRUE(reader.has("cursor"));
  EXPECT_FALSE(reader.has("cursors"));
  EXPECT_SAYS(refusal([&] { CheckpointReader none(scratch / "none"); }), "does not exist");
  EXPECT_SAYS(refusal([&] { CheckpointReader none(scratch / "."); }), "has no manifest.json");
}

TEST(Checkpoint, MissingAndDoubleElementsAreNotPublished) {
  const Scratch scratch;
  const auto publish = [&](std::int64_t second_begin, std::int64_t second_count, Shape second_shape) {
    const std::vector<float> values(10, 1.0f);
    CheckpointWriter first(scratch / "c", 0, 2), second(scratch / "c", 1, 2);
    first.write("w", {10}, 0, std::span(values).first(5));
    second.write("w", second_shape, second_begin, std::span(values).first(static_cast<std::size_t>(second_count)));
    first.close_part();
    second.close_part();
    const std::string answer = refusal([&] { first.publish("{}"); });
    first.abandon();
    second.abandon();
    EXPECT_FALSE(fs::exists(scratch / "c.partial"));
    return answer;
  };
  EXPECT_SAYS(publish(6, 4, {10}), "lacks elements 5 to 5 of the tensor w");
  EXPECT_SAYS(publish(5, 3, {10}), "lacks elements 8 to 9 of the tensor w");
  EXPECT_SAYS(publish(4, 6, {10}), "holds elements 4 to 4 of the tensor w twice");
  EXPECT_SAYS(publish(5, 5, {2, 5}), "both as f32 [10] and as f32 [2, 5]");
  EXPECT_FALSE(fs::exists(scratch / "c"));
  EXPECT_EQ(publish(5, 5, {10}), "accepted");
  EXPECT_TRUE(fs::exists(scratch / "c"));
}

TEST(Checkpoint, IsNotPublishedBeforeEveryRankHasFinished) {
  const Scratch scratch;
  CheckpointWriter first(scratch / "c", 0, 2), second(scratch / "c", 1, 2);
  write_part(first, 0, 2);
  EXPECT_SAYS(refusal([&] { first.publish("{}"); }), "rank 1 has not finished its part");
  write_part(second, 1, 2);
  EXPECT_SAYS(refusal([&] { first.publish("{"); }), "is not valid JSON");
  first.publish("{}");
  EXPECT_EQ(first_moment(scratch / "c"), moment(0));
}

TEST(Checkpoint, ACrashBeforePublishLeavesTheOldOneValid) {
  const Scratch scratch;
  write_checkpoint(scratch / "step-1", 3);
  {
    CheckpointWriter writer(scratch / "step-1", 0, 3), other(scratch / "step-2", 0, 1);
    write_part(writer, 0, 3, 100);
    write_part(other, 0, 1, 100);
  }  // the process ends here
  std::vector<std::string> passed_over;
  EXPECT_EQ(latest_checkpoint(scratch / ".", "step-", &passed_over), scratch / "./step-1");
  EXPECT_EQ(passed_over.size(), 2u);
  EXPECT_EQ(first_moment(scratch / "step-1"), moment(0));
  write_checkpoint(scratch / "step-1", 1, 200);  // fewer ranks: parts of the crashed run must not stay
  EXPECT_EQ(entries(scratch / "step-1"), 2u);
  EXPECT_EQ(first_moment(scratch / "step-1"), moment(0) + 200);
  EXPECT_FALSE(fs::exists(scratch / "step-1.replaced"));
}

/// A child writes the same two checkpoints over and over and is killed at some moment; then the last complete one must be whole.
TEST(Checkpoint, KilledAtAnyMomentLeavesACompleteOne) {
  const Scratch scratch;
  write_checkpoint(scratch / "a", 2);
  std::mt19937 random(11);
  std::set<std::string> seen;
  for (int kill_number = 0; kill_number < 25; ++kill_number) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (int i = 1; i < 200; ++i) write_checkpoint(scratch / (i % 2 ? "b" : "a"), 1 + i % 3, i);
      _exit(0);
    }
    usleep(random() % 40000);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    const std::string latest = latest_checkpoint(scratch / ".");
    ASSERT_NE(latest, "");
    for (const auto& entry : fs::directory_iterator(scratch / ".")) seen.insert(entry.path().filename().string());
    const CheckpointReader reader(latest);
    std::vector<float> weights(large);
    std::vector<double> moments(35);
    reader.read("block.0.up.weight", 0, large, weights.data());
    reader.read("adam.moment", 0, 35, moments.data());
    EXPECT_EQ(weights, slice<float>(0, large, weight));
    for (std::int64_t i = 0; i < 35; ++i) EXPECT_DOUBLE_EQ(moments[static_cast<std::size_t>(i)] - moments[0], moment(i));
  }
  EXPECT_TRUE(seen.contains("a.partial") || seen.contains("b.partial")) << "no kill hit a checkpoint being written";
}

TEST(Checkpoint, ACrashBetweenTheTwoRenamesLosesNothing) {
  const Scratch scratch;
  write_checkpoint(scratch / "step-1", 1);
  fs::rename(scratch / "step-1", scratch / "step-1.replaced");
  fs::create_directory(scratch / "step-1.partial");
  EXPECT_EQ(latest_checkpoint(scratch / "."), scratch / "./step-1.replaced");
  write_checkpoint(scratch / "step-1", 1, 5);
  EXPECT_EQ(latest_checkpoint(scratch / "."), scratch / "./step-1");
  EXPECT_FALSE(fs::exists(scratch / "step-1.replaced"));
}

TEST(Checkpoint, TheLatestIsTheLastPublishedThatIsComplete) {
  const Scratch scratch;
  EXPECT_EQ(latest_checkpoint(scratch / "none"), "");
  for (const char* name : {"sft-20", "sft-100", "ppo-3"}) write_checkpoint(scratch / name, 2);
  EXPECT_EQ(latest_checkpoint(scratch / "."), scratch / "./ppo-3");
  EXPECT_EQ(latest_checkpoint(scratch / ".", "sft-"), scratch / "./sft-100");
  fs::resize_file(scratch / "ppo-3/part-00001.h5", 100);
  EXPECT_EQ(latest_checkpoint(scratch / "."), scratch / "./sft-100");
  fs::remove(scratch / "sft-100/part-00000.h5");
  std::vector<std::string> passed_over;
  EXPECT_EQ(latest_checkpoint(scratch / ".", "", &passed_over), scratch / "./sft-20");
  ASSERT_EQ(passed_over.size(), 2u);
  EXPECT_SAYS(passed_over[0], "part-00001.h5' has 100 bytes instead of");
  EXPECT_SAYS(passed_over[1], "its part part-00000.h5 cannot be found");
}

TEST(Checkpoint, OldOnesAreRemovedWithinTheirStage) {
  const Scratch scratch;
  for (const char* name : {"sft-1", "sft-2", "sft-3", "ppo-1", "ppo-2", "sft-best", "sft-2-old"}) write_checkpoint(scratch / name, 1);
  fs::create_directory(scratch / "sft-0.partial");
  EXPECT_EQ(latest_checkpoint(scratch / ".", "sft-"), scratch / "./sft-3");
  remove_old_checkpoints(scratch / ".", 2, "sft-");
  EXPECT_FALSE(fs::exists(scratch / "sft-1") || fs::exists(scratch / "sft-0.partial"));
  EXPECT_TRUE(fs::exists(scratch / "sft-2") && fs::exists(scratch / "ppo-1"));
  for (const char* copy : {"sft-best", "sft-2-old"}) {  // of a user
    EXPECT_TRUE(fs::exists(scratch / copy));
    fs::remove_all(scratch / copy);
  }
  remove_old_checkpoints(scratch / ".", 1);
  EXPECT_EQ(entries(scratch / "."), 1u);
  EXPECT_EQ(latest_checkpoint(scratch / "."), scratch / "./ppo-2");
}

TEST(Checkpoint, DamageIsFoundAndNamed) {
  const Scratch scratch;
  write_checkpoint(scratch / "c", 2);
  const std::string part = scratch / "c/part-00001.h5", manifest = scratch / "c/manifest.json";
  const std::string good_part = bytes_of(part), good_manifest = bytes_of(manifest);
  const auto read_all = [&] {
    return refusal([&] {
      const CheckpointReader reader(scratch / "c");
      std::vector<float> weights(large);
      std::vector<double> moments(35);
      reader.read("block.0.up.weight", 0, large, weights.data());
      reader.read("adam.moment", 0, 35, moments.data());
    });
  };
  EXPECT_EQ(read_all(), "accepted");
  put(part, good_part + "x");  // longer than it was when it was published
  EXPECT_SAYS(read_all(), "bytes instead of");

  const std::vector<float> some = slice<float>(large - 100, large, weight);  // one bit of the second rank's weights
  std::string bad = good_part;
  const auto place = bad.find(std::string(reinterpret_cast<const char*>(some.data()), 400));
  ASSERT_NE(place, std::string::npos);
  bad[place + 50] ^= 4;
  put(part, bad);
  EXPECT_SAYS(read_all(), part + "' is damaged: elements");
  EXPECT_SAYS(read_all(), "of the tensor block.0.up.weight do not have their checksum");

  for (std::size_t at = 0; at < 4000; at += 97) {  // anywhere in the HDF5 structures: an error or the right numbers, never a crash
    bad = good_part;
    bad[at] = static_cast<char>(bad[at] ^ 0xff);
    put(part, bad);
    const std::string answer = read_all();
    EXPECT_TRUE(answer == "accepted" || answer.find("part-00001.h5") != std::string::npos) << answer;
  }
  put(part, good_part.substr(0, good_part.size() / 2));
  EXPECT_SAYS(read_all(), "bytes instead of");
  fs::remove(part);
  EXPECT_SAYS(read_all(), "part-00001.h5");
  put(part, good_part);

  for (std::size_t at = 0; at < good_manifest.size() - 1; at += 7) {
    bad = good_manifest;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    put(manifest, bad);
    EXPECT_SAYS(read_all(), "manifest.json' is damaged");
  }
  put(manifest, good_manifest.substr(0, 100));
  EXPECT_SAYS(read_all(), "manifest.json' is damaged");
  put(manifest, good_manifest);
  EXPECT_EQ(read_all(), "accepted");
}

TEST(Checkpoint, AFullDiskIsASentenceAndShowsNothingHalf) {
  const Scratch scratch;
  write_checkpoint(scratch / "c", 1);
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  for (const rlim_t bytes : {100, 3000, 100'000, 4'200'000}) {
    const rlimit small{bytes, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    std::string answer = "no sentence";
    try {
      CheckpointWriter writer(scratch / "c", 0, 1);
      write_part(writer, 0, 1, 100);
    } catch (const Error& error) {
      answer = error.what();
    }
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_SAYS(answer, "c.partial/part-00000.h5") << bytes;
    EXPECT_SAYS(answer, "free space") << bytes;
  }
  CheckpointWriter(scratch / "c", 0, 1).abandon();
  EXPECT_FALSE(fs::exists(scratch / "c.partial"));
  EXPECT_EQ(first_moment(scratch / "c"), moment(0));
}

}  // namespace
}  // namespace collimate
