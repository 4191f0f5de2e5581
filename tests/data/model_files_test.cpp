#include "collimate/data/model_files.hpp"

#include "data/tokenizer_helpers.hpp"

namespace collimate {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ModelFiles, EveryKeyThatSaysSomethingIsUsedOrNamed) {
  const TokenizerFolder folder;
  EXPECT_THAT(read_model_files(folder.path()).notes, ElementsAre());
  folder.write("tokenizer_config.json", R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": "", "legacy": false,
    "add_bos_token": true, "add_eos_token": false, "add_prefix_space": null, "tokenizer_class": "LlamaTokenizerFast",
    "model_max_length": 1000000000000000019884624838656, "clean_up_tokenization_spaces": false, "sp_model_kwargs": {}, "image_token": "<i>",
    "do_lower_case": false, "additional_special_tokens": ["<a>", {"content": "<b>"}]})");
  folder.write("generation_config.json", R"({"_from_model_config": true, "do_sample": true, "temperature": 1.0, "bos_token_id": 1,
    "eos_token_id": [2, 7], "transformers_version": "5.24.0"})");
  folder.write("config.json", R"({"model_type": "llama", "eos_token_id": [2, 5], "pad_token_id": -1})");
  const ModelFiles files = read_model_files(folder.path());
  EXPECT_THAT(files.notes,
              ElementsAre(folder.path() + "/tokenizer_config.json: not used: image_token, model_max_length (without effect here)",
                          folder.path() + "/generation_config.json: not used: _from_model_config, do_sample, transformers_version (without effect here)"));
  EXPECT_EQ(files.tokenizer_class, "LlamaTokenizer");
  EXPECT_EQ(files.bos.value_or(TokenName{}).text, "<s>");
  EXPECT_EQ(files.eos.value_or(TokenName{}).text, "</s>");
  EXPECT_FALSE(files.unknown.has_value());
  EXPECT_EQ(files.legacy, std::optional(false));
  EXPECT_EQ(files.add_bos, std::optional(true));
  EXPECT_FALSE(files.add_prefix_space.has_value());
  EXPECT_THAT(files.ends, ElementsAre(2, 5, 7));
  EXPECT_EQ(files.bos_id, std::optional<std::int64_t>(1));
  EXPECT_FALSE(files.pad_id.has_value());
  EXPECT_THAT(files.extra_special, ElementsAre("<a>", "<b>"));

  folder.write("tokenizer_config.json", R"({"do_lower_case": true, "max_length": 512, "colour": 1, "fog": null})");
  folder.write("generation_config.json", R"({"repetition_penalty": 1.1, "temperature": 0.6, "stop_strings": ["x"], "rain": [2]})");
  const std::string at = folder.path();
  const std::string config = at + "/tokenizer_config.json: not used: ", generation = at + "/generation_config.json: not used: ";
  EXPECT_THAT(read_model_files(at).notes,
              ElementsAre(config + "colour (not known)", config + "max_length (such settings stand on the command line and in the deck)",
                          config + "do_lower_case (the tokenizer's own file says whether letters become small)",
                          generation + "rain (not known)",
                          generation + "repetition_penalty, stop_strings (other programs draw other samples with them)",
                          generation + "temperature (such settings stand on the command line and in the deck)"));
}

TEST(ModelFiles, ChatTemplatesComeFromEveryFileThatHoldsThem) {
  const TokenizerFolder folder;
  EXPECT_EQ(read_model_files(folder.path()).chat_template(), nullptr);
  folder.write("tokenizer_config.json", R"({"chat_template": "one"})");
  EXPECT_EQ(*read_model_files(folder.path()).chat_template(), "one");
  folder.write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]})");
  ModelFiles files = read_model_files(folder.path());
  ASSERT_EQ(files.chat_templates.size(), 2u);
  EXPECT_EQ(*files.chat_template(), "d");
  EXPECT_EQ(files.chat_templates[1].text, "r");
  folder.write("chat_template.jinja", "from a file");
  files = read_model_files(folder.path());
  EXPECT_EQ(*files.chat_template(), "from a file");
  EXPECT_EQ(files.chat_templates.size(), 2u);
  folder.write("tokenizer_config.json", R"({"chat_template": 3})");
  EXPECT_THAT(refusal([&] { read_model_files(folder.path()); }), HasSubstr("\"chat_template\" is neither a text nor a list"));
}

TEST(ModelFiles, AddedTokensAreReadByIdAndFromBothFiles) {
  const TokenizerFolder folder;
  folder.write("tokenizer_config.json",
               R"({"added_tokens_decoder": {"10": {"content": "<b>", "special": true, "rstrip": true}, "9": {"content": "<a>"}}})");
  folder.write("added_tokens.json", R"({"<b>": 10, "<c>": 11})");
  const ModelFiles files = read_model_files(folder.path());
  ASSERT_EQ(files.added_tokens.size(), 3u);
  EXPECT_EQ(files.added_tokens[0].content, "<a>");
  EXPECT_FALSE(files.added_tokens[0].special);
  EXPECT_TRUE(files.added_tokens[1].special && files.added_tokens[1].rstrip && !files.added_tokens[1].lstrip);
  EXPECT_EQ(files.added_tokens[2].id, 11);
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"ten": {"content": "<b>"}}})");
  EXPECT_THAT(refusal([&] { read_model_files(folder.path()); }), HasSubstr("has the key 'ten', not a token id"));
}

TEST(ModelFiles, EndsAreThoseOfTheTokenizerAndOfAllFiles) {
  const TokenizerFolder folder;
  folder.write("config.json", R"({"eos_token_id": 3})");
  folder.write("generation_config.json", R"({"eos_token_id": [3, 256, 900]})");
  const auto tokenizer = byte_tokenizer();
  const ModelFiles files = read_model_files(folder.path());
  EXPECT_THAT(ends_of_text(tokenizer.get(), files, 300), ElementsAre(256, 3));
  EXPECT_THAT(ends_of_text(nullptr, files, 1000), ElementsAre(3, 256, 900));
  folder.write("generation_config.json", R"({"eos_token_id": "</s>"})");
  EXPECT_THAT(refusal([&] { read_model_files(folder.path()); }), HasSubstr("\"eos_token_id\" is \"</s>\", not a token id"));
}

}  // namespace
}  // namespace collimate
