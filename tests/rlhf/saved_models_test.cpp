#include "collimate/rlhf/saved_models.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "collimate/base/timer.hpp"
#include "collimate/rlhf/save_models.hpp"
#include "support/small_model.hpp"

namespace collimate::rlhf {
namespace {

// Tokenizers of real models are texts of megabytes in the same JSON: what a checkpoint says is parsed when it is opened, and then no more.
TEST(SavedModels, AnswersWithoutParsingTheTokenizerAgain) {
  const auto folder = std::filesystem::temp_directory_path() / ("collimate_saved_models_" + std::to_string(::getpid()));
  const ModelConfig config = test::small_llama();
  const test::OneEngine one(config, Head::policy, 1, {.rows = 64});
  ModelCard card;
  card.config = config;
  CheckpointNotes notes;
  notes.stage = "sft";
  notes.text.tokenizer = std::string(16 << 20, 't');
  save_models(folder / "sft", {{"policy", card, &one.engine.store()}}, notes, *make_single_communicator());
  const SavedModels saved(folder / "sft");
  const Stopwatch clock;
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(saved.stage(), "sft");
    ASSERT_EQ(saved.card("policy").shards, 1);
    ASSERT_TRUE(saved.has("policy") && !saved.complete());
  }
  EXPECT_LT(clock.seconds(), 5.0);  // some milliseconds; parsing takes some a time
  EXPECT_EQ(saved.text_rules().tokenizer, notes.text.tokenizer);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace collimate::rlhf
