#include "data/normalizer.hpp"

#include <nlohmann/json.hpp>

#include "data/tokenizer_helpers.hpp"
#include "data/unicode.hpp"

namespace collimate {
namespace {

using nlohmann::json;

std::uint32_t fnv1a_32(std::string_view text) {
  std::uint32_t hash = 0x811c9dc5;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x01000193;
  return hash;
}

/// All code points but 0 and surrogates, changed by a step.
std::string changed(const json& step) {
  std::string text;
  for (char32_t code = 1; code < 0x110000; ++code)
    if (code < 0xD800 || code >= 0xE000) append_code(text, code);
  read_normalizer(step, "some/tokenizer.json").apply(text, Edge::start);
  return text;
}

// Every limit of every range: the hashes are those of what the tokenizers package makes of the same text.
TEST(Normalizer, ChangesTheCodePointsThatTheReferenceChanges) {
  EXPECT_EQ(fnv1a_32(changed({{"type", "Nmt"}})), 0xddc9ba26);
  const json ideographs = {
      {"type", "BertNormalizer"}, {"clean_text", false}, {"handle_chinese_chars", true}, {"strip_accents", false}, {"lowercase", false}};
  EXPECT_EQ(fnv1a_32(changed(ideographs)), 0x6cc19327);
}

}  // namespace
}  // namespace collimate
