#include <map>
#include <nlohmann/json.hpp>

#include "collimate/data/tokenizer.hpp"
#include "data/bpe_alphabet.hpp"
#include "data/bpe_merges.hpp"
#include "data/tokenizer_helpers.hpp"

namespace collimate {
namespace {

using nlohmann::json;
using testing::HasSubstr;

TEST(BpeMerges, AgreeWithTheDefinitionOnRandomTables) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    MergeTable table;
    std::map<std::pair<std::int32_t, std::int32_t>, std::pair<std::int32_t, std::int32_t>> oracle;
    const int alphabet = 2 + round % 4;
    for (int rank = 0; rank < 40; ++rank) {
      const auto left = static_cast<std::int32_t>(random() % (alphabet + rank)),
                 right = static_cast<std::int32_t>(random() % (alphabet + rank));
      const std::int32_t shared_rank = round % 2 ? rank : rank / 3;  // equal ranks go to the leftmost
      table.insert(left, right, {shared_rank, alphabet + rank});
      oracle[{left, right}] = {shared_rank, alphabet + rank};
    }
    Ids symbols(random() % 60);
    for (auto& symbol : symbols) symbol = static_cast<std::int32_t>(random() % alphabet);
    Ids expected = symbols;
    while (true) {
      std::size_t best = expected.size();
      std::pair<std::int32_t, std::int32_t> merge{1 << 30, 0};
      for (std::size_t i = 0; i + 1 < expected.size(); ++i) {
        const auto found = oracle.find({expected[i], expected[i + 1]});
        if (found != oracle.end() && found->second.first < merge.first) best = i, merge = found->second;
      }
      if (best == expected.size()) break;
      expected[best] = merge.second;
      expected.erase(expected.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
    MergeTable::Scratch scratch;
    table.apply(symbols, scratch);
    EXPECT_EQ(symbols, expected) << round;
  }
}

TEST(BpeAlphabet, SpellsEveryByteAsGpt2Does) {
  EXPECT_EQ(bytes_to_alphabet(" a\n"), "ĠaĊ");
  EXPECT_EQ(bytes_to_alphabet(std::string("\0\x7f\x80\xa0\xad\xff", 6)), "ĀġĢłŃÿ");
  for (int b = 0; b < 256; ++b) {
    const std::string byte(1, static_cast<char>(b));
    EXPECT_EQ(alphabet_to_bytes(bytes_to_alphabet(byte)), byte);
  }
  EXPECT_EQ(alphabet_to_bytes("汉"), std::nullopt);
  EXPECT_EQ(alphabet_to_bytes(" "), std::nullopt);
  EXPECT_EQ(alphabet_order()[0], '!');
  EXPECT_EQ(alphabet_order()[188], 0);
}

/// A tokenizer.json with the bytes as ids 0-255 in GPT-2's order and three merges.
json small_file() {
  json vocabulary;
  int id = 0;
  for (const unsigned char byte : alphabet_order()) vocabulary[bytes_to_alphabet(std::string(1, static_cast<char>(byte)))] = id++;
  for (const char* piece : {"he", "Ġhe", "Ġhey", "12"}) vocabulary[piece] = id++;
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens",
           json::array({{{"id", 260}, {"content", "<eos>"}, {"special", true}}, {{"id", 262}, {"content", "[tool]"}, {"special", false}}})},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
          {"post_processor", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", {"h e", "Ġ he", "1 2"}}}}};
}

std::unique_ptr<Tokenizer> load(const json& file) {
  const TokenizerFolder folder;
  return load_tokenizer(folder.write("tokenizer.json", file.dump()));
}

TEST(BpeTokenizerJson, IsReadAndEncodes) {
  const auto tokenizer = load(small_file());
  EXPECT_EQ(tokenizer->kind(), "bpe");
  EXPECT_EQ(tokenizer->vocabulary(), 263);
  EXPECT_EQ(tokenizer->encode("he he"), (Ids{256, 257}));
  EXPECT_EQ(tokenizer->encode(" hey"), (Ids{257, 'y' - '!'}));  // in the vocabulary, but no merge leads there
  EXPECT_EQ(tokenizer->encode("123"), (Ids{259, '3' - '!'}));
  EXPECT_EQ(tokenizer->encode("he[tool]he"), (Ids{256, 262, 256}));  // not special: always matched
  EXPECT_EQ(tokenizer->decode(Ids{256, 262, 260}), "he[tool]");
  EXPECT_EQ(encode_special(*tokenizer, "he<eos>"), (Ids{256, 260}));
  EXPECT_EQ(tokenizer->encode("<eos>").size(), 5u);
  EXPECT_EQ(tokenizer->piece(261), "");  // a hole
  EXPECT_EQ(tokenizer->decode(Ids{261}), "");
}

TEST(BpeTokenizerJson, MergesMayBePairsAndMayBeIgnored) {
  json file = small_file();
  file["model"]["merges"] = json::parse(R"([["h", "e"], ["Ġ", "he"], ["1", "2"]])");
  EXPECT_EQ(load(file)->fingerprint(), load(small_file())->fingerprint());
  file["model"]["ignore_merges"] = true;
  EXPECT_EQ(load(file)->encode("x hey"), (Ids{'x' - '!', 258}));
}

TEST(BpeTokenizerJson, SplitsAndDigitsComeBeforeTheBytes) {
  json file = small_file();
  const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const auto with = [&](const json& step) {
    file["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {step, byte_level}}};
    return load(file);
  };
  const Ids one_two{'1' - '!', '2' - '!'};
  EXPECT_EQ(with({{"type", "Split"}, {"pattern", {{"Regex", "\\p{N}{1,1}"}}}, {"behavior", "Isolated"}, {"invert", false}})->encode("12"),
            one_two);
  EXPECT_EQ(with({{"type", "Split"}, {"pattern", {{"Regex", "\\p{N}"}}}, {"behavior", "Removed"}, {"invert", true}})->encode("12"),
            one_two);
  EXPECT_EQ(with({{"type", "Split"}, {"pattern", {{"String", "."}}}, {"behavior", "Isolated"}})->encode("12"), Ids{259});
  const auto digits = with({{"type", "Digits"}, {"individual_digits", true}});
  EXPECT_EQ(digits->encode("12"), one_two);
  EXPECT_EQ(deserialize_tokenizer(digits->serialize())->fingerprint(), digits->fingerprint());
}

TEST(BpeTokenizerJson, TruncationAndPaddingAreNotUsedAndSaid) {
  json file = small_file();
  file["truncation"] = {{"direction", "Right"}, {"max_length", 2}, {"strategy", "LongestFirst"}, {"stride", 0}};
  file["padding"] = {{"strategy", {{"Fixed", 8}}}, {"direction", "Right"}, {"pad_id", 0}};
  const auto tokenizer = load(file);
  EXPECT_EQ(tokenizer->encode("123123"), load(small_file())->encode("123123"));
  EXPECT_THAT(tokenizer->notes(), testing::UnorderedElementsAre(HasSubstr("tokenizer.json: not used: padding (samples"),
                                                                HasSubstr("tokenizer.json: not used: truncation (texts are cut")));
  EXPECT_EQ(with_special_ids(load(file), {256, 257, {}, {}})->notes().size(), 2u);
  EXPECT_TRUE(deserialize_tokenizer(tokenizer->serialize())->notes().empty());
}

TEST(BpeTokenizerJson, PrefixSpace) {
  json file = small_file();
  file["pre_tokenizer"]["add_prefix_space"] = true;
  const auto tokenizer = load(file);
  EXPECT_EQ(tokenizer->encode("he"), Ids{257});
  EXPECT_EQ(deserialize_tokenizer(tokenizer->serialize())->encode("he"), Ids{257});
}

TEST(BpeTokenizerJson, KeepsThePostProcessorForOtherPrograms) {
  const TokenizerFolder folder;
  save_tokenizer(*load(small_file()), folder.path());
  const json saved = json::parse(read_file(folder.path() + "/tokenizer.json"));
  EXPECT_EQ(saved["post_processor"], small_file()["post_processor"]);
  EXPECT_EQ(load_tokenizer(folder.path())->fingerprint(), load(small_file())->fingerprint());
}

TEST(BpeTokenizerJson, AMissingByteIsUnknownOrRefused) {
  json file = small_file();
  file["model"]["vocab"].erase("z");
  EXPECT_THAT(refusal([&] { load(file)->encode("az"); }), HasSubstr("no token for byte 0x7A"));
  file["model"]["unk_token"] = "<eos>";
  const auto tokenizer = load(file);
  EXPECT_EQ(tokenizer->unknown(), 260);
  EXPECT_EQ(tokenizer->encode("az"), (Ids{'a' - '!', 260}));
  EXPECT_EQ(deserialize_tokenizer(tokenizer->serialize())->encode("az"), (Ids{'a' - '!', 260}));
}

TEST(BpeTokenizerJson, RefusesWhatItDoesNotSupport) {
  const std::vector<std::pair<json, const char*>> patches = {
      {{{"normalizer", {{"type", "NFX"}}}}, "the normalizer NFX is not supported"},
      {{{"prefix", {{"max_length", 5}}}}, "\"prefix\" is not supported: no program"},
      {{{"decoder", {{"type", "CTC"}}}}, "the decoder CTC is not supported"},
      {{{"pre_tokenizer", {{"type", "Other"}}}}, "the pre-tokenizer Other is not supported"},
      {{{"model", {{"type", "Neural"}}}}, "the model type Neural is not supported"},
      {{{"model", {{"byte_fallback", true}}}}, "with byte_fallback the vocabulary must have <0x00>"},
      {{{"model", {{"dropout", 0.1}}}}, "\"dropout\" is not supported: it would give other ids"},
      {{{"model", {{"unk_token", "<unk>"}}}}, "the unk_token \"<unk>\" is not in the vocabulary"},
      {{{"model", {{"merges", {"h q"}}}}}, "merge 1: the merge 'h q' needs the token 'hq', which the vocabulary lacks"},
      {{{"model", {{"merges", {"h zz"}}}}}, "needs the token 'zz'"},
      {{{"model", {{"merges", {"h"}}}}}, "merge 1: 'h' is not two tokens"},
      {{{"model", {{"merges", {7}}}}}, "not laid out as a tokenizer.json"},
      {{{"model", {{"vocab", {{"he", -1}}}}}}, "the id of 'he' is -1"},
      {{{"model", {{"vocab", {{"he", 1.5}}}}}}, "the id of 'he' is 1.5"},
      {{{"model", {{"vocab", {{"he", 2000000000}}}}}}, "the id of 'he' is 2000000000"},
      {{{"model", {{"vocab", {{"he", 3}}}}}}, "have the same id 3"},
      {{{"added_tokens", json::array({{{"id", 3}, {"content", "<x>"}}})}}, "the added token '<x>' has id 3, but that is '$'"},
      {{{"added_tokens", json::array({{{"id", 300}, {"content", "he"}}})}},
       "the added token 'he' has id 300, but the vocabulary gives it 256"},
      {{{"added_tokens", json::array({{{"id", 300}, {"content", "<m>"}, {"single_words", true}}})}},
       "\"single_words\" is not supported"},
      {{{"added_tokens", json::array({{{"id", 300}}})}}, "not laid out as a tokenizer.json"},
  };
  for (const auto& [patch, sentence] : patches) {
    json file = small_file();
    for (const auto& [key, value] : patch.items()) {
      if (key == "model") file["model"].update(value, true);
      else file[key] = value;
    }
    const std::string error = refusal([&] { load(file); });
    EXPECT_THAT(error, HasSubstr(sentence)) << patch;
    EXPECT_THAT(error, HasSubstr("tokenizer.json")) << patch;
  }
}

}  // namespace
}  // namespace collimate
