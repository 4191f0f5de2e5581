#include <nlohmann/json.hpp>

#include "collimate/base/text.hpp"
#include "collimate/data/template.hpp"
#include "data/bpe_alphabet.hpp"
#include "data/special_tokens_golden.hpp"
#include "data/testing.hpp"
#include "data/tokenizer_helpers.hpp"

// Special tokens in a template's own words are tokens; the same characters in data are letters.
namespace collimate {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

json added_token(const std::string& content, std::int32_t id, bool special = true) {
  return {{"id", id},        {"content", content},     {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", !special}, {"special", special}};
}

/// Gives what each merge makes an id of its own.
void add_merges(json& vocabulary, const std::vector<std::string>& merges) {
  for (const std::string& merge : merges) {
    const std::size_t space = merge.find(' ');
    const std::string made = merge.substr(0, space) + merge.substr(space + 1);
    if (!vocabulary.contains(made)) vocabulary[made] = vocabulary.size();
  }
}

/// Byte-level: the bytes in GPT-2's order, 16 merges, and five added tokens.
json byte_level_file(bool prefix_space) {
  const std::vector<std::string> merges = {"u s", "us e", "use r", "a s", "i s", "a n",  "as s", "ass is",
                                           "H i", "Ġ t",  "Ċ Ċ",   "i m", "e n", "en d", "< |",  "| >"};
  json vocabulary = json::object();
  for (const unsigned char byte : alphabet_order())
    vocabulary[bytes_to_alphabet(std::string(1, static_cast<char>(byte)))] = vocabulary.size();
  add_merges(vocabulary, merges);
  const auto first = static_cast<std::int32_t>(vocabulary.size());
  return {{"added_tokens",
           {added_token("<|endoftext|>", first), added_token("<|im_start|>", first + 1), added_token("<|im_end|>", first + 2),
            added_token("<|im_end|>x", first + 3), added_token("[tool]", first + 4, false)}},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", prefix_space}, {"use_regex", true}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}}}};
}

/// SentencePiece's kind. "every": a space before every part of a text; "first": before the first; "none": before none.
json metaspace_file(const std::string& kind) {
  const std::vector<std::string> merges = {"u s", "us e", "use r", "▁ user", "a s", "i s", "H i", "▁ Hi", "▁ t", "e n", "en d", "▁ ▁"};
  json vocabulary = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int b = 0; b < 256; ++b) vocabulary[fmt::format("<0x{:02X}>", b)] = vocabulary.size();
  for (const char* letter : {"▁", "u", "s", "e", "r", "t", "a", "i", "H", "n", "d"}) vocabulary[letter] = vocabulary.size();
  add_merges(vocabulary, merges);
  const auto first = static_cast<std::int32_t>(vocabulary.size());
  const json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
  json file = {
      {"added_tokens",
       {added_token("<s>", 1), added_token("</s>", 2), added_token("<|im_start|>", first), added_token("<|im_end|>", first + 1)}},
      {"model",
       {{"type", "BPE"}, {"byte_fallback", true}, {"fuse_unk", true}, {"unk_token", "<unk>"}, {"vocab", vocabulary}, {"merges", merges}}}};
  json decoders = {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}}, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
  if (kind != "none") decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  file["decoder"] = {{"type", "Sequence"}, {"decoders", decoders}};
  if (kind == "every") file["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "Prepend"}, {"prepend", "▁"}}, replace}}};
  if (kind == "none") file["normalizer"] = replace;
  if (kind == "first") file["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}, {"split", false}};
  return file;
}

std::unique_ptr<Tokenizer> load(const json& file) {
  const TokenizerFolder folder;
  return load_tokenizer(folder.write("tokenizer.json", file.dump()));
}

std::unique_ptr<Tokenizer> tokenizer_of(const std::string& kind) {
  return load(kind == "bytes" || kind == "spaced" ? byte_level_file(kind == "spaced") : metaspace_file(kind));
}

Template template_of(const json& words) {
  Template rules;
  rules.add_bos = rules.add_eos = false;
  rules.prompt = words["prompt"];
  rules.response_prefix = words.value("response_prefix", "");
  rules.response_suffix = words.value("response_suffix", "");
  rules.human = words.value("human", "");
  rules.assistant = words.value("assistant", "");
  rules.system = words.value("system", "");
  rules.turn_suffix = words.value("turn_suffix", "");
  return rules;
}

Example example_of(const json& fields) {
  Example example;
  example.prompt = fields.value("prompt", "");
  example.input = fields.value("input", "");
  for (const json& turn : fields.value("turns", json::array())) example.turns.push_back({turn[0], turn[1]});
  example.response = fields["response"].get<std::string>();
  return example;
}

/// Prompt, response, and both.
struct Encoded {
  Ids prompt, response, whole;
};

Encoded encode(const Template& rules, const Tokenizer& tokenizer, const Example& example) {
  const TemplateEncoder encoder(rules, tokenizer);
  LengthCounts counts;
  Encoded out;
  encoder.prompt(rules.prompt_text(example), "here", out.prompt, counts);
  encoder.response(rules.response_text(example, *example.response), out.prompt, "here", out.response, counts);
  out.whole = out.prompt;
  out.whole.insert(out.whole.end(), out.response.begin(), out.response.end());
  return out;
}

TEST(SpecialTokens, AreThoseOfAnotherProgram) {
  int compared = 0;
  for (const json& row : json::parse(special_tokens_golden)) {
    for (const auto& [kind, ids] : row["ids"].items()) {
      const auto tokenizer = tokenizer_of(kind);
      Template rules = template_of(row["template"]);
      rules.look_for_special(*tokenizer);
      const Example example = example_of(row["example"]);
      const Encoded ours = encode(rules, *tokenizer, example);
      Ids expected = ids;
      // This kind puts a space before the response too, which in one text with its prompt has none.
      if (kind == "spaced") expected.resize(ours.prompt.size());
      EXPECT_EQ(kind == "spaced" ? ours.prompt : ours.whole, expected) << kind << ": " << row["template"] << row["example"];
      if (kind == "bytes") {
        EXPECT_EQ(tokenizer->decode(ours.whole, true),
                  rules.prompt_text(example).text + rules.response_text(example, *example.response).text);
      }
      ++compared;
    }
  }
  EXPECT_EQ(compared, 60);
}

constexpr std::int32_t end_of_text = 272, start = 273, end = 274, tool = 276;  // of the byte-level file

Template chat() {
  Template rules;
  rules.prompt = "<|im_start|>{prompt}<|im_end|>";
  rules.response_suffix = "<|im_end|>";
  rules.special_tokens = true;
  return rules;
}

Example asks(std::string prompt, std::string response) {
  Example example;
  example.prompt = std::move(prompt);
  example.response = std::move(response);
  return example;
}

SpecialIds ends(std::optional<std::int32_t> bos, std::optional<std::int32_t> eos) { return {bos, eos, std::nullopt, std::nullopt}; }

TEST(SpecialTokens, TheTemplatesOwnBosIsTheOnlyOneAtTheStart) {
  const auto tokenizer = with_special_ids(tokenizer_of("bytes"), ends(start, end_of_text));
  const TemplateEncoder encoder(chat(), *tokenizer);
  LengthCounts counts;
  Ids tokens;
  encoder.prompt(chat().prompt_text(asks("a", "")), "here", tokens, counts);
  EXPECT_THAT(tokens, ElementsAre(start, 'a' - '!', end));
  EXPECT_EQ(counts.prompt_had_bos, 1);
  // Data that begin with its letters do not count, and a response's own words keep it.
  Template rules = chat();
  rules.prompt = "{prompt}";
  rules.response_prefix = "<|im_start|>";
  const Encoded other = encode(rules, *tokenizer, asks("<|im_start|>", "a"));
  EXPECT_EQ(other.prompt.front(), start);
  EXPECT_EQ(std::count(other.prompt.begin(), other.prompt.end(), start), 1);
  EXPECT_EQ(tokenizer->decode(other.prompt), "<|im_start|>");
  EXPECT_THAT(other.response, ElementsAre(start, 'a' - '!', end, end_of_text));
}

TEST(SpecialTokens, ThereIsExactlyOneEosAndNothingBehindIt) {
  const auto tokenizer = with_special_ids(tokenizer_of("bytes"), ends(end_of_text, end));
  EXPECT_THAT(encode(chat(), *tokenizer, asks("a", "b")).response, ElementsAre('b' - '!', end));
  EXPECT_THAT(encode(chat(), *tokenizer, asks("a", "<|im_end|>")).response, testing::Contains(end).Times(1));
  Template rules = chat();
  rules.add_eos = false;
  EXPECT_THAT(encode(rules, *tokenizer, asks("a", "b")).response, ElementsAre('b' - '!', end));
  rules.response_suffix = "<|im_end|>\n";
  EXPECT_THAT(refusal([&] { TemplateEncoder(rules, *tokenizer); }),
              AllOf(HasSubstr("behind the end-of-text token <|im_end|>"), HasSubstr("leave out")));
  rules.response_suffix = "";
  rules.response_prefix = "<|im_end|><|im_start|>";
  EXPECT_THAT(refusal([&] { TemplateEncoder(rules, *tokenizer); }), HasSubstr("response_prefix"));
  // A cut takes it away, as it takes one that is added.
  rules = chat();
  rules.max_response_tokens = 2;
  rules.response_rule = TooLong::cut;
  EXPECT_THAT(encode(rules, *tokenizer, asks("a", "bcd")).response, ElementsAre('b' - '!', 'c' - '!'));
}

/// The folder's tokenizer keeps the letters of `<|im_end|>` in data, and has the token in a template's own words.
void expect_special_end(const TokenizerFolder& folder, const std::string& what) {
  const auto loaded = load_tokenizer(folder.path()), stored = deserialize_tokenizer(loaded->serialize());
  const TokenizerFolder other_program;
  save_tokenizer(*loaded, other_program.path());
  const auto saved = load_tokenizer(other_program.path());
  for (const Tokenizer* tokenizer : {loaded.get(), stored.get(), saved.get()}) {
    const std::int32_t id = tokenizer->id_of("<|im_end|>").value();
    EXPECT_EQ(tokenizer->eos(), id) << what;
    EXPECT_TRUE(tokenizer->is_special(id)) << what;
    Template rules;
    rules.prompt = "{prompt}<|im_end|>";
    rules.add_bos = false;
    rules.look_for_special(*tokenizer);
    EXPECT_TRUE(rules.special_tokens) << what;
    const Encoded ours = encode(rules, *tokenizer, asks("a <|im_end|> b", "<|im_end|>"));
    EXPECT_EQ(std::count(ours.prompt.begin(), ours.prompt.end(), id), 1) << what;
    EXPECT_EQ(std::count(ours.response.begin(), ours.response.end(), id), 1) << what;
    EXPECT_EQ(tokenizer->decode(ours.prompt), "a <|im_end|> b") << what;
  }
}

TEST(SpecialTokens, BosAndEosAreSpecialWhateverTheirFileSays) {
  for (const std::string kind : {"bytes", "every", "none", "first"}) {
    json file = kind == "bytes" ? byte_level_file(false) : metaspace_file(kind);
    json& added = file["added_tokens"];
    const auto end_token = std::find_if(added.begin(), added.end(), [](const json& token) { return token["content"] == "<|im_end|>"; });
    (*end_token)["special"] = (*end_token)["normalized"] = false;
    const std::int32_t id = (*end_token)["id"];
    const TokenizerFolder folder;
    folder.write("tokenizer.json", file.dump());
    EXPECT_THAT(load_tokenizer(folder.path())->encode("a<|im_end|>"), testing::Contains(id)) << kind;  // any other such token
    for (const auto& [name, content] : {std::pair("tokenizer_config.json", json{{"eos_token", "<|im_end|>"}}),
                                        {"special_tokens_map.json", json{{"eos_token", {{"content", "<|im_end|>"}}}}},
                                        {"config.json", json{{"eos_token_id", {id, 1}}}}}) {
      folder.write(name, content.dump());
      expect_special_end(folder, kind + " " + name);
      folder.remove(name);
    }
    folder.write("tokenizer_config.json", R"({"bos_token": "<|im_end|>"})");
    EXPECT_THAT(load_tokenizer(folder.path())->encode("a<|im_end|>"), testing::Not(testing::Contains(id))) << kind;
    // One that only the vocabulary holds, and no merge makes.
    folder.write("tokenizer_config.json", R"({"eos_token": "<|im_end|>"})");
    file["model"]["vocab"]["<|im_end|>"] = id;
    added.erase(end_token);
    folder.write("tokenizer.json", file.dump());
    expect_special_end(folder, kind + ", in the vocabulary");
  }
}

TEST(SpecialTokens, PiecesThatTextsConsistOfStayThoseAsEos) {
  for (const std::string kind : {"bytes", "every"}) {
    const TokenizerFolder folder;
    folder.write("tokenizer.json", (kind == "bytes" ? byte_level_file(false) : metaspace_file(kind)).dump());
    for (const char* piece : {"user", "u", kind == "bytes" ? "Ċ" : "<0x0A>"}) {  // made by merges, a character, a byte
      folder.write("tokenizer_config.json", json{{"eos_token", piece}}.dump());
      const auto tokenizer = load_tokenizer(folder.path());
      EXPECT_FALSE(tokenizer->is_special(*tokenizer->eos())) << piece;
      EXPECT_EQ(tokenizer->decode(tokenizer->encode("a user\nu")), "a user\nu") << piece;
    }
  }
}

TEST(SpecialTokens, AnEosThatAnOlderVersionStoredAsPlainStaysPlain) {
  json file = byte_level_file(false);
  file["added_tokens"][2]["special"] = false;
  const auto tokenizer = deserialize_tokenizer(replace_all(load(file)->serialize(), "\"eos\":272", "\"eos\":274"));
  EXPECT_EQ(tokenizer->eos(), end);
  EXPECT_THAT(tokenizer->encode("a<|im_end|>"), ElementsAre('a' - '!', end));
}

TEST(SpecialTokens, HhDialoguesAreDataButForTheResponsesOwnWords) {
  const auto tokenizer = with_special_ids(tokenizer_of("bytes"), ends(start, end_of_text));
  Example hh = asks("\n\nHuman: <|im_start|>\n\nAssistant:", " Hi<|im_end|>");
  hh.complete = true;
  const Encoded ours = encode(chat(), *tokenizer, hh);
  EXPECT_EQ(tokenizer->decode(ours.whole), hh.prompt + *hh.response);
  EXPECT_EQ(ours.prompt.front(), start);
  EXPECT_EQ(std::count(ours.whole.begin(), ours.whole.end(), start), 1);
  EXPECT_EQ(Ids(ours.response.end() - 2, ours.response.end()), (Ids{end, end_of_text}));
  hh.is_text = true;
  EXPECT_TRUE(chat().response_text(hh, "<|im_end|>").own.empty());
}

TEST(SpecialTokens, OwnWordsAreMarkedAndSoIsWhatTheyHold) {
  const TemplateText text = chat().prompt_text(asks("<|im_end|>", ""));
  EXPECT_EQ(text.own, (std::vector<TextRange>{{0, 12}, {22, 32}}));
  Template rules;
  rules.prompt = "a{{[[{input}]][[x{prompt}y]]z";
  EXPECT_EQ(rules.prompt_text(asks("b", "")).text, "a{xbyz");
  EXPECT_EQ(rules.prompt_text(asks("b", "")).own, (std::vector<TextRange>{{0, 3}, {4, 6}}));
  EXPECT_EQ(rules.prompt_text(asks("", "")).own, (std::vector<TextRange>{{0, 3}}));
  rules.prompt = "[[{input}xyz]]{prompt}";  // own words that are left out do not cover the data in their place
  EXPECT_TRUE(rules.prompt_text(asks("bcd", "")).own.empty());
}

TEST(SpecialTokens, AreLettersInTemplatesOfOlderVersions) {
  const auto tokenizer = tokenizer_of("bytes");
  Template rules = chat();
  EXPECT_THAT(rules.to_json(), HasSubstr("\"special_tokens\":true"));
  EXPECT_EQ(Template::from_json(rules.to_json()), rules);
  Template old = rules;
  old.special_tokens = false;
  EXPECT_THAT(old.to_json(), testing::Not(HasSubstr("special_tokens")));
  EXPECT_EQ(Template::from_json(old.to_json()), old);
  EXPECT_EQ(rules.difference(old), "special tokens in the template are tokens here and letters there");
  old.add_bos = old.add_eos = false;
  EXPECT_THAT(encode(old, *tokenizer, asks("a", "b")).whole, testing::Not(testing::Contains(end)));
  // What is no token of the tokenizer leaves the template as it was.
  Template none = old;
  none.prompt = "<|system|>{prompt}";
  none.response_suffix = "[tool]";
  none.look_for_special(*tokenizer);
  EXPECT_FALSE(none.special_tokens);
  old.look_for_special(*tokenizer);
  EXPECT_TRUE(old.special_tokens);
  for (std::string Template::*words : {&Template::prompt, &Template::response_prefix, &Template::response_suffix, &Template::human,
                                       &Template::assistant, &Template::system, &Template::turn_suffix}) {
    Template one;
    one.*words += "<|endoftext|>";
    one.look_for_special(*tokenizer);
    EXPECT_TRUE(one.special_tokens);
  }
}

TEST(SpecialTokens, BesideANormalizerTheyMustNotBeNormalizedInTextThatHasDataToo) {
  const std::string text = "a<|im_end|>";
  const TextRange end[] = {{1, text.size()}}, own[] = {{2, 12}};
  json file = metaspace_file("every");
  file["added_tokens"][3]["normalized"] = true;
  const auto tokenizer = load(file);
  EXPECT_THAT(tokenizer->encode(text), testing::Not(testing::IsEmpty()));
  EXPECT_THAT(refusal([&] { tokenizer->encode(text, end); }), AllOf(HasSubstr("'<|im_end|>'"), HasSubstr("set it to false")));
  // Where all of a text is a template's, it is looked for behind the normalizer, which gives its name a blank: other programs find it so.
  const std::int32_t id = tokenizer->id_of("<|im_end|>").value();
  EXPECT_THAT(encode_special(*tokenizer, text), testing::Not(testing::Contains(id)));
  EXPECT_THAT(encode_special(*tokenizer, "a <|im_end|>"), ElementsAre(testing::_, testing::_, id));
  file = metaspace_file("none");
  file["added_tokens"][3]["normalized"] = true;
  EXPECT_EQ(load(file)->encode("Hi<|im_end|>", own), load(metaspace_file("none"))->encode("Hi<|im_end|>", own));
  file["added_tokens"][3]["rstrip"] = true;  // spaces are no blanks there any more
  EXPECT_THAT(refusal([&] { load(file)->encode(text, end); }), HasSubstr("changes the text around it"));
  file = metaspace_file("first");
  file["added_tokens"][3]["normalized"] = true;  // no normalizer: the same
  EXPECT_EQ(encode_special(*load(file), "Hi<|im_end|>"), encode_special(*load(metaspace_file("first")), "Hi<|im_end|>"));
}

/// The files above, but <|im_start|> takes the blanks before it, <|im_end|> those behind it, [tool] both.
std::unique_ptr<Tokenizer> blank_taking(const std::string& kind) {
  json file = kind == "bytes" ? byte_level_file(false) : metaspace_file(kind);
  for (json& token : file["added_tokens"]) {
    const std::string name = token["content"];
    token["lstrip"] = name == "<|im_start|>" || name == "[tool]";
    token["rstrip"] = name == "<|im_end|>" || name == "[tool]";
  }
  return load(file);
}

// Ids by Hugging Face's tokenizers 0.23.
TEST(SpecialTokens, TakeBlanksWithThemWhereTheySaySo) {
  const std::pair<std::string, std::map<std::string, Ids>> rows[] = {
      {"Hi <|im_end|> \n user <|im_start|> end",
       {{"bytes", {264, 220, 274, 258, 273, 220, 269}},
        {"every", {277, 259, 283, 273, 282, 281, 280}},
        {"none", {276, 259, 283, 272, 282, 259, 280}},
        {"first", {277, 259, 283, 272, 282, 259, 280}}}},
      {" <|im_start|>user\n\n<|im_end|>\n <|im_start|>\u3000\u00a0Hi<|im_end|>\u2028\u200b t",
       {{"bytes", {273, 258, 266, 274, 273, 159, 222, 222, 126, 254, 264, 274, 158, 222, 233, 265}},
        {"every", {282, 273, 13, 13, 283, 282, 259, 230, 131, 131, 197, 163, 276, 283, 259, 229, 131, 142, 278}},
        {"none", {282, 272, 13, 13, 283, 282, 230, 131, 131, 197, 163, 276, 283, 229, 131, 142, 278}},
        {"first", {282, 272, 13, 13, 283, 282, 230, 131, 131, 197, 163, 276, 283, 229, 131, 142, 278}}}},
      {"  <|im_end|> <|im_end|>\t\v\f\r",
       {{"bytes", {220, 220, 274, 274}}, {"every", {281, 259, 283, 283}}, {"none", {281, 283, 283}}, {"first", {281, 283, 283}}}},
      {"Hi [tool]\n <|im_start|><|im_end|>x ",
       {{"bytes", {264, 276, 273, 275, 220}},
        {"every", {277, 259, 94, 264, 114, 114, 111, 96, 282, 283, 259, 123, 259}},
        {"none", {276, 259, 94, 264, 114, 114, 111, 96, 282, 283, 123, 259}},
        {"first", {277, 259, 94, 264, 114, 114, 111, 96, 282, 283, 123, 259}}}},
      {"end \u0085 [tool] \u1680t\u200a<|im_start|>\u180e<|im_end|>",
       {{"bytes", {269, 276, 83, 273, 157, 254, 236, 274}},
        {"every", {259, 280, 259, 197, 136, 259, 94, 264, 114, 114, 111, 96, 259, 228, 157, 131, 264, 282, 259, 228, 163, 145, 283}},
        {"none", {280, 259, 197, 136, 259, 94, 264, 114, 114, 111, 96, 259, 228, 157, 131, 264, 282, 228, 163, 145, 283}},
        {"first", {259, 280, 259, 197, 136, 259, 94, 264, 114, 114, 111, 96, 259, 228, 157, 131, 264, 282, 228, 163, 145, 283}}}},
  };
  for (const auto& [text, by_kind] : rows)
    for (const auto& [kind, ids] : by_kind) EXPECT_EQ(encode_special(*blank_taking(kind), text), ids) << kind << ": " << text;

  const auto tokenizer = blank_taking("bytes");
  EXPECT_EQ(tokenizer->encode("Hi [tool] \u00a0Hi <|im_end|> "), tokenizer->encode("Hi[tool]Hi <|im_end|> "));  // the last two are letters
  for (const char* blank : {"\t",     "\n",     "\v",     "\f",     "\r",     " ",      "\u0085", "\u00a0", "\u1680",  // all there are
                            "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008",
                            "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"})
    EXPECT_THAT(tokenizer->encode(fmt::format("a{0}[tool]{0}{0}b", blank)), ElementsAre('a' - '!', tool, 'b' - '!')) << blank;
  for (const char* other : {"\u180e", "\u200b", "\u2060", "\ufeff"})
    EXPECT_GT(tokenizer->encode(fmt::format("a[tool]{}b", other)).size(), 3u) << other;
  // Behind such a token of a prompt a response loses its blanks as well, and its own words stay where they are.
  const TextRange own[] = {{0, 3}, {5, 16}};
  EXPECT_THAT(tokenizer->encode_after(Ids{end}, " \n\u3000Hi<|im_end|> ", {}), testing::Not(testing::Contains(end)));
  EXPECT_EQ(tokenizer->encode_after(Ids{end}, " \n Hi <|im_end|> ", own), encode_special(*tokenizer, "Hi <|im_end|>"));
  EXPECT_EQ(tokenizer->encode_after(Ids{start}, " \n Hi", own), tokenizer->encode(" \n Hi"));
  EXPECT_EQ(tokenizer->encode_after(Ids{end, 'a' - '!'}, " Hi", own), tokenizer->encode(" Hi"));
  // Stored with it.
  const auto again = deserialize_tokenizer(tokenizer->serialize());
  EXPECT_EQ(encode_special(*again, rows[0].first), rows[0].second.at("bytes"));
  EXPECT_NE(tokenizer->fingerprint(), tokenizer_of("bytes")->fingerprint());
}

TEST(SpecialTokens, WhatOnlyLooksLikeOneIsNamed) {
  const auto tokenizer = tokenizer_of("bytes");
  Template rules = chat();
  EXPECT_EQ(rules.look_for_special(*tokenizer), "");
  rules.prompt = "<s><|user|>{prompt}<|im_end|>{input}<|{prompt}|><| a|><b>[INST]";
  rules.human = "<|user|>";
  rules.turn_suffix = "<|end|></s>";
  EXPECT_EQ(
      rules.look_for_special(*tokenizer),
      "the template's <s>, <|user|>, <|end|>, </s> stay letters, because the tokenizer has no such token: name tokens that it has, or "
      "take another one\n");
  EXPECT_EQ(rules.special_tokens, true);
  EXPECT_THAT(rules.look_for_special(*tokenizer_of("every")), AllOf(HasSubstr("<|user|>, <|end|> stay"), testing::Not(HasSubstr("s>,"))));
}

TEST(SpecialTokens, RangesHoldThemWhole) {
  const auto tokenizer = tokenizer_of("bytes");
  const std::string text = "<|im_end|>x[tool]<|im_end|>";  // 10, 11, 17 and 27 bytes
  const auto count = [&](std::vector<TextRange> ranges) {
    const Ids ids = tokenizer->encode(text, ranges);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), tool), 1);  // not special: found everywhere
    EXPECT_EQ(tokenizer->decode(ids, true), text);
    return std::pair(std::count(ids.begin(), ids.end(), end), std::count(ids.begin(), ids.end(), end + 1));
  };
  EXPECT_EQ(count({}), std::pair(0L, 0L));
  EXPECT_EQ(count({{0, 27}}), std::pair(1L, 1L));
  EXPECT_EQ(count({{0, 10}}), std::pair(1L, 0L));
  EXPECT_EQ(count({{0, 9}, {18, 27}}), std::pair(0L, 0L));
  EXPECT_EQ(count({{0, 5}, {5, 11}, {16, 27}}), std::pair(1L, 0L));
}

}  // namespace
}  // namespace collimate
