#include "collimate/io/inspect.hpp"

#include <gtest/gtest.h>

#include "collimate/base/hdf5_file.hpp"
#include "collimate/io/checkpoint.hpp"
#include "collimate/io/run_folder.hpp"
#include "collimate/io/safetensors.hpp"
#include "io/scratch.hpp"

namespace collimate {
namespace {

using test::put;
using test::refusal;
using test::Scratch;

void write_checkpoint(const std::string& path) {
  CheckpointWriter writer(path, 0, 1);
  writer.write("w", {2, 3}, 0, std::span<const float>(std::vector<float>(6, 1.0f)));
  writer.attribute("{\"host\":\"here\"}");
  writer.close_part();
  writer.publish(R"({"stage":"sft","step":7})");
}

TEST(Inspect, Checkpoint) {
  const Scratch scratch;
  write_checkpoint(scratch / "c");
  const std::string text = inspect(scratch / "c");
  EXPECT_SAYS(text, "in 1 part, 1 tensors");
  EXPECT_SAYS(text, "\"step\": 7");
  EXPECT_SAYS(text, "w f32 [2, 3], 24 B");
  EXPECT_SAYS(text, "\nrank 0\n  {\n    \"host\": \"here\"\n  }\ntensors\n");
  const std::string described = inspect(scratch / "c", [](const std::string& meta) {
    return Sections{{"of", meta}, {"deck", "a = 1\nb = 2\n"}};
  });
  EXPECT_SAYS(described, "tensors\nof\n  {\"stage\":\"sft\",\"step\":7}\ndeck\n  a = 1\n  b = 2\nrank 0\n");
  EXPECT_SAYS(inspect(scratch / "c/part-00000.h5"), "elements_0: f32 [6]\n");
  EXPECT_SAYS(inspect(scratch / "c/part-00000.h5"), "ranks = 1\n");
  EXPECT_SAYS(inspect(scratch / "."), "c (the latest complete one)");
  std::filesystem::resize_file(scratch / "c/part-00000.h5", 50);
  EXPECT_SAYS(refusal([&] { inspect(scratch / "c"); }), "part-00000.h5' has 50 bytes");
}

TEST(Inspect, RanksThatSayTheSameAreSaidOnce) {
  const Scratch scratch;
  for (const int rank : {3, 2, 1, 0}) {
    CheckpointWriter writer(scratch / "c", rank, 4);
    if (rank != 2) writer.attribute(rank == 3 ? R"({"host":"b"})" : R"({"host":"a"})");
    writer.close_part();
    if (rank == 0) writer.publish("{}");
  }
  EXPECT_SAYS(inspect(scratch / "c"), "\nranks 0 to 1\n  {\n    \"host\": \"a\"\n  }\nrank 3\n  {\n    \"host\": \"b\"\n  }\ntensors\n");
}

TEST(Inspect, CheckpointWithABox) {
  const Scratch scratch;
  CheckpointWriter writer(scratch / "c", 0, 1);
  writer.write_box("w", {2, 3}, {0, 2, 0, 1}, std::vector<float>(2, 1.0f));
  writer.write_box("w", {2, 3}, {0, 2, 1, 2}, std::vector<float>(4, 1.0f));
  writer.close_part();
  writer.publish("{}");
  EXPECT_SAYS(inspect(scratch / "c"), "in 1 part, 1 tensors");
  EXPECT_SAYS(inspect(scratch / "c"), "tensors\n  w f32 [2, 3], 24 B\n");
  EXPECT_SAYS(inspect(scratch / "c/part-00000.h5"), "box_1: f32 [4]\n        columns = 2\n        tensor_shape = [2, 3]\n");
}

TEST(Inspect, Run) {
  const Scratch scratch;
  RunFolder run(scratch / "run", Existing::refuse, {});
  EXPECT_SAYS(inspect(scratch / "run"), "checkpoints\n  none\n");
  run.write_deck("# deck\nstages = sft, ppo\n[sft]\nsteps = 3\n[lora]\nstages = reward\n");
  run.metrics().write(JsonLine().add("step", 1));
  run.metrics().write(JsonLine().add("step", 2));
  write_checkpoint(run.checkpoints() + "/sft-000002");
  std::filesystem::create_directory(run.checkpoints() + "/sft-000003.partial");
  Summary summary;
  summary.set("sft.eval_loss", 1.25);
  run.write_summary(summary);
  const std::string text = inspect(scratch / "run");
  EXPECT_SAYS(text, "stages = sft, ppo\n");
  EXPECT_EQ(text.find("stages = reward"), std::string::npos);
  EXPECT_SAYS(text, "\n  {\"step\":2}\n");
  EXPECT_SAYS(text, "sft-000002 (the latest complete one)");
  EXPECT_SAYS(text, "sft-000003.partial' was not finished");
  EXPECT_SAYS(text, "\"sft.eval_loss\": 1.25");
}

TEST(Inspect, DatasetAndModel) {
  const Scratch scratch;
  {
    Hdf5File file = Hdf5File::create(scratch / "d.h5");
    file.set_attribute("/", "kind", "preference");
    file.set_attribute("/", "count", 12);
    file.write("/tokens/ids", std::span<const std::int32_t>(std::vector<std::int32_t>{1, 2, 3}));
    file.write_text("/template", "Q: {prompt}\nA:" + std::string(1300, '-'));
    file.close();
  }
  const std::string text = inspect(scratch / "d.h5");
  EXPECT_SAYS(text, "  kind = preference\n");
  EXPECT_SAYS(text, "  count = 12\n");
  EXPECT_SAYS(text, "ids: i32 [3]\n");
  EXPECT_SAYS(text, "template: Q: {prompt}\\nA:---");
  EXPECT_SAYS(text, "... (1314 bytes)\n");
  write_safetensors(scratch / "model.safetensors", {{"wte", {4, 2}}}, [](auto, std::span<float>) {});
  put(scratch / "config.json", "{\"model_type\": \"gpt2\"}\n");
  EXPECT_SAYS(inspect(scratch / "."), "8 numbers of type F32\ntensors\n  wte F32 [4, 2]\nconfig.json\n  {\"model_type\": \"gpt2\"}\n");
  EXPECT_SAYS(inspect(scratch / "model.safetensors"), "format = pt\n");
  put(scratch / "x.txt", "abc");
  EXPECT_SAYS(refusal([&] { inspect(scratch / "x.txt"); }), "neither an HDF5 file nor a safetensors file");
  EXPECT_SAYS(refusal([&] { inspect(scratch / "nothing"); }), "does not exist");
  std::filesystem::create_directory(scratch / "empty");
  EXPECT_SAYS(refusal([&] { inspect(scratch / "empty"); }), "is neither a checkpoint, nor a run folder");
}

}  // namespace
}  // namespace collimate
