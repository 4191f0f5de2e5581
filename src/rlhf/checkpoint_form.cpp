#include "rlhf/checkpoint_form.hpp"

namespace collimate::rlhf {
namespace {

using nlohmann::json;

// A serialised tokenizer may hold any byte; JSON holds text. Each byte becomes the code point of its number.
std::string bytes_to_text(const std::string& bytes) {
  std::string text;
  for (const unsigned char c : bytes) {
    if (c < 0x80) {
      text += static_cast<char>(c);
    } else {
      text += static_cast<char>(0xc0 | c >> 6);
      text += static_cast<char>(0x80 | (c & 0x3f));
    }
  }
  return text;
}

std::string text_to_bytes(const std::string& text) {
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    bytes += c < 0x80 || i + 1 == text.size() ? static_cast<char>(c)
                                              : static_cast<char>((c & 0x3) << 6 | (static_cast<unsigned char>(text[++i]) & 0x3f));
  }
  return bytes;
}

json to_json(const AdapterNote& note) {
  return {{"rank", note.lora.rank}, {"alpha", note.lora.alpha}, {"dropout", note.lora.dropout},  {"targets", note.lora.targets},
          {"base", note.base},      {"seed", note.seed},        {"base_model", note.base_model}, {"base_hash", note.base_hash},
          {"base_values", note.base_values}};
}

AdapterNote adapter_note_from(const json& found) {
  const LoraConfig lora{found["rank"], found["alpha"], found["dropout"], found["targets"]};
  return {lora, found["base"], found["base_model"], found["seed"], found["base_hash"], found.value("base_values", "f32")};
}

}  // namespace

std::string tensor_of(const std::string& model, Kind kind, const std::string& parameter) {
  return model + (kind == Kind::value ? "/value/" : kind == Kind::first_moment ? "/first_moment/" : "/second_moment/") + parameter;
}

json card_to_json(const ModelCard& card) {
  json out{{"config", json::parse(card.config.to_json())},
           {"head", card.head == Head::value ? "value" : "policy"},
           {"shards", card.shards},
           {"gain", card.normalisation.gain},
           {"bias", card.normalisation.bias}};
  if (!card.scorer.empty()) out["scorer"] = card.scorer;
  if (card.init_std > 0) out["init_std"] = card.init_std;
  if (card.adapters.lora.on()) out["adapters"] = to_json(card.adapters);
  return out;
}

ModelCard card_from_json(const json& card) {
  return {ModelConfig::from_json(card["config"].dump()),
          card["head"] == "value" ? Head::value : Head::policy,
          card["shards"],
          {card["gain"], card["bias"]},
          card.value("scorer", ""),
          card.contains("adapters") ? adapter_note_from(card["adapters"]) : AdapterNote{},
          card.value("init_std", 0.0)};
}

void add_text_rules(json& meta, const TextRules& text) {
  meta["tokenizer"] = bytes_to_text(text.tokenizer);
  meta["template"] = json::parse(text.rules.to_json());
  meta["settled"] = text.settled;
  if (!text.ends.empty()) meta["ends"] = text.ends;
  if (text.bos) meta["bos"] = *text.bos;
  if (!text.generation.empty()) meta["generation"] = json::parse(text.generation);
  if (!text.chat_template.empty()) meta["chat_template"] = text.chat_template;
}

TextRules text_rules_of(const json& meta) {
  TextRules text;
  text.tokenizer = tokenizer_of(meta);
  if (meta.contains("template")) text.rules = Template::from_json(meta["template"].dump());
  text.settled = meta.value("settled", meta.value("stage", "") != "import");
  text.ends = meta.value("ends", std::vector<std::int32_t>());
  if (meta.contains("bos")) text.bos = meta["bos"].get<std::int32_t>();
  if (meta.contains("generation")) text.generation = meta["generation"].dump();
  text.chat_template = meta.value("chat_template", "");
  return text;
}

std::string tokenizer_of(const json& meta) { return text_to_bytes(meta.value("tokenizer", "")); }

}  // namespace collimate::rlhf
