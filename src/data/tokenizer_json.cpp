#include <nlohmann/json.hpp>

#include "collimate/base/error.hpp"
#include "data/bpe_json.hpp"
#include "data/bpe_tokenizer.hpp"
#include "data/pipeline_tokenizer.hpp"
#include "data/file_keys.hpp"

namespace collimate {
namespace {

/// An added token is looked for before the normalizer, or behind it by what it makes of the name. A special one that no normalizer touches
/// may be looked for before it: its own ranges of the text are known there only.
void read_added_tokens(const json& file, Pipeline& pipeline, const std::string& name) {
  for (const json& token : file.value("added_tokens", json::array())) {
    const std::string content = token.at("content");
    check_keys(token, KeysOf::added_token, fmt::format("{}, added token '{}'", name, content));
    const std::int32_t id = id_in(token.at("id"), content, name);
    const bool special = token.value("special", false);
    pipeline.names->add(content, id, special, name);
    const AddedToken added{content, id, special, token.value("single_word", false), {token.value("lstrip", false), token.value("rstrip", false)}};
    std::string normal = content;
    pipeline.normalizer.apply(normal, Edge::start);
    const bool touched = normal != content || pipeline.normalizer.looks_at_ends() || added.blanks.before || added.blanks.behind;
    if (pipeline.normalizer.empty() || !token.value("normalized", !special) || (special && !touched)) {
      pipeline.added.add(added);
      continue;
    }
    if (special) pipeline.unsure.add(added);
    AddedToken behind = added;
    behind.text = normal;
    if (normal.empty()) continue;
    pipeline.normalized.add(behind);
    pipeline.names->set_text(id, normal);
  }
}

Pipeline read_pipeline(const json& file, const std::string& name, Notes& notes) {
  require(file.is_object() && file.contains("model") && file["model"].is_object(), "{}: not a tokenizer.json: it has no \"model\"", name);
  notes = check_keys(file, KeysOf::tokenizer_json, name);
  Pipeline pipeline;
  pipeline.names = std::make_unique<TokenNames>();
  read_model_names(file["model"], *pipeline.names, name);
  pipeline.normalizer = read_normalizer(file.value("normalizer", json()), name);
  pipeline.pretokenizer = read_pretokenizer(file.value("pre_tokenizer", json()), name);
  if (is_set(file, "added_tokens")) read_added_tokens(file, pipeline, name);
  pipeline.model = read_model(file["model"], *pipeline.names, name);
  const bool byte_tokens = pipeline.model->has_byte_tokens();
  const DefaultDecoder absent = pipeline.pretokenizer.spells_bytes()                       ? DefaultDecoder::byte_level
                                : byte_tokens || pipeline.model->kind() == "unigram" ? DefaultDecoder::metaspace
                                                                                           : DefaultDecoder::words;
  pipeline.decoder = std::make_unique<DecoderChain>(read_decoder(file.value("decoder", json()), absent, byte_tokens, name));
  pipeline.surround = read_post_processor(file.value("post_processor", json()), *pipeline.names, name);
  return pipeline;
}

std::unique_ptr<Tokenizer> parse(const std::string& text, const std::string& name, bool stored) {
  const json file = parse_json(text, name);
  try {
    Notes notes;
    Pipeline pipeline = read_pipeline(file, name, notes);
    const auto usual = stored ? std::nullopt : usual_tokenizer_json(file, name);
    auto tokenizer = std::make_unique<PipelineTokenizer>(std::move(pipeline), usual.value_or(text));
    tokenizer->add_notes(notes);
    return tokenizer;
  } catch (const json::exception&) {
    fail("{}: not laid out as a tokenizer.json: an entry is missing or not what it should be; save the tokenizer again", name);
  }
}

}  // namespace

std::unique_ptr<Tokenizer> parse_tokenizer_json(const std::string& text, const std::string& name) { return parse(text, name, false); }

std::unique_ptr<Tokenizer> parse_stored_tokenizer_json(const std::string& text, const std::string& name) { return parse(text, name, true); }

}  // namespace collimate
