#include "app/text_files.hpp"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"

namespace collimate {
namespace {

using Json = nlohmann::ordered_json;

/// One id as a number, several as a list, as other programs write them.
Json as_json(const std::vector<std::int32_t>& ids) { return ids.empty() ? Json() : ids.size() == 1 ? Json(ids.front()) : Json(ids); }

std::string shown(std::int32_t id, const Tokenizer* tokenizer) {
  if (tokenizer == nullptr || id >= tokenizer->vocabulary()) return std::to_string(id);
  return fmt::format("{} ({})", id, tokenizer->piece(id));
}

}  // namespace

std::string take_text_files(rlhf::TextRules& text, const Tokenizer* tokenizer, const ModelFiles& files, std::int64_t rows) {
  text.ends = ends_of_text(tokenizer, files, rows);
  text.generation = files.generation;
  if (tokenizer == nullptr && files.bos_id && *files.bos_id < rows) text.bos = static_cast<std::int32_t>(*files.bos_id);
  std::string lines;
  for (const std::int32_t id : files.ends)
    if (id >= rows)
      lines += fmt::format("{} names {} as an end of text, which the model with its {} rows cannot give: it is left out\n", files.folder, id, rows);
  if (text.ends.size() < 2) return lines;
  std::vector<std::string> names;
  for (const std::int32_t id : text.ends) names.push_back(shown(id, tokenizer));
  lines += fmt::format("each of these tokens ends a response: {}", join(names, ", "));
  if (tokenizer != nullptr && tokenizer->eos()) lines += fmt::format("; those that are learned end with {}", shown(*tokenizer->eos(), tokenizer));
  return lines + "\n";
}

void write_text_files(const std::string& folder, const rlhf::TextRules& text, const Tokenizer* tokenizer) {
  const auto at = [&](const char* name) { return (std::filesystem::path(folder) / name).string(); };
  const std::vector<std::int32_t> stops = text.stops(tokenizer);
  const std::optional<std::int32_t> bos = tokenizer != nullptr ? tokenizer->bos() : text.bos;
  Json config = Json::parse(read_file(at("config.json")));
  config["bos_token_id"] = bos ? Json(*bos) : Json();
  config["eos_token_id"] = as_json(stops);
  write_file(at("config.json"), config.dump(2) + "\n");
  if (stops.empty() && text.generation.empty()) return;
  Json generation = text.generation.empty() ? Json::object() : Json::parse(text.generation);
  if (bos) generation["bos_token_id"] = *bos;
  if (!stops.empty()) generation["eos_token_id"] = as_json(stops);
  if (tokenizer != nullptr && tokenizer->pad()) generation["pad_token_id"] = *tokenizer->pad();
  write_file(at("generation_config.json"), generation.dump(2) + "\n");
}

}  // namespace collimate
