#include "data/json_tokens.hpp"

#include <algorithm>
#include <cctype>
#include <map>

#include "collimate/base/error.hpp"

namespace collimate {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

ordered_json as_json(const AddedTokenEntry& token) {
  return {{"id", token.id},         {"content", token.content},       {"single_word", token.single_word}, {"lstrip", token.lstrip},
          {"rstrip", token.rstrip}, {"normalized", token.normalized}, {"special", token.special}};
}

/// The entries of a vocabulary, by id: of BPE an object, of Unigram a list.
template <class Json>
std::map<std::int32_t, std::string> names_of(const Json& model) {
  std::map<std::int32_t, std::string> names;
  const Json& vocabulary = model.at("vocab");
  std::int32_t next = 0;
  for (const auto& [name, entry] : vocabulary.items()) {
    if (vocabulary.is_array())
      names.emplace(next++, entry.at(0).template get<std::string>());
    else
      names.emplace(entry.template get<std::int32_t>(), name);
  }
  return names;
}

}  // namespace

template <class Json>
void add_tokens(Json& file, const std::vector<AddedTokenEntry>& tokens, const std::string& name) {
  const std::map<std::int32_t, std::string> names = names_of(file.at("model"));
  std::map<std::int32_t, Json> added;
  for (const Json& token : file.value("added_tokens", Json::array())) added[token.at("id").template get<std::int32_t>()] = token;
  for (const AddedTokenEntry& token : tokens) {
    const auto known = names.find(token.id);
    require(known == names.end() || known->second == token.content,
            "{}: the added token '{}' has id {}, but that is '{}' in the vocabulary", name, token.content, token.id,
            known == names.end() ? "" : known->second);
    added[token.id] = as_json(token);
  }
  const std::int32_t last = std::max(names.empty() ? -1 : names.rbegin()->first, added.empty() ? -1 : added.rbegin()->first);
  for (std::int32_t id = names.empty() ? 0 : names.rbegin()->first + 1; id < last; ++id)
    if (!added.contains(id)) {
      AddedTokenEntry filler;
      filler.id = id;
      filler.content = fmt::format("<|unused_{}|>", id);
      added[id] = as_json(filler);
    }
  file["added_tokens"] = Json::array();
  for (auto& [id, token] : added) file["added_tokens"].push_back(std::move(token));
}
template void add_tokens(nlohmann::json&, const std::vector<AddedTokenEntry>&, const std::string&);
template void add_tokens(ordered_json&, const std::vector<AddedTokenEntry>&, const std::string&);

ordered_json token_before(const std::string& token, std::int32_t id) {
  const auto part = [](const char* kind, const std::string& name, int type) {
    return ordered_json::object({{kind, ordered_json::object({{"id", name}, {"type_id", type}})}});
  };
  const ordered_json first = part("SpecialToken", token, 0), a = part("Sequence", "A", 0), b = part("Sequence", "B", 1);
  ordered_json out;
  out["type"] = "TemplateProcessing";
  out["single"] = ordered_json::array({first, a});
  out["pair"] = ordered_json::array({first, a, part("SpecialToken", token, 1), b});
  out["special_tokens"][token] =
      ordered_json::object({{"id", token}, {"ids", ordered_json::array({id})}, {"tokens", ordered_json::array({token})}});
  return out;
}

std::string to_base64(std::string_view bytes) {
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t k = 0; k < 3; ++k) bits = bits << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    const std::size_t used = std::min<std::size_t>(bytes.size() - i, 3) + 1;
    for (std::size_t k = 0; k < 4; ++k) out += k < used ? digits[bits >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::string from_base64(std::string_view text) {
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string out;
  std::uint32_t bits = 0;
  int held = 0;
  for (const char c : text) {
    const std::size_t digit = digits.find(c);
    if (digit == std::string_view::npos) return "";
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    held += 6;
    if (held < 8) continue;
    held -= 8;
    out += static_cast<char>(bits >> held & 255);
  }
  return out;
}

std::string escaped_for_regex(std::string_view literal) {
  std::string out;
  for (const char c : literal) {
    if (static_cast<unsigned char>(c) < 0x80 && !std::isalnum(static_cast<unsigned char>(c))) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace collimate
