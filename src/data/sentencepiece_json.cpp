#include "data/sentencepiece_json.hpp"

#include <algorithm>
#include <tuple>
#include <unordered_map>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "data/bpe_alphabet.hpp"
#include "data/json_tokens.hpp"
#include "data/sentencepiece_proto.hpp"

namespace collimate {
namespace {

using nlohmann::ordered_json;

constexpr const char* metaspace = "\u2581";

/// Every way to make a piece of two others, the best piece first: SentencePiece merges the pair whose result has the highest score.
ordered_json merges_of(const SentencePieceModel& model) {
  std::unordered_map<std::string_view, std::int32_t> ids;
  for (std::size_t id = 0; id < model.pieces.size(); ++id)
    if (model.pieces[id].type == PieceType::normal) ids.emplace(model.pieces[id].text, static_cast<std::int32_t>(id));
  std::vector<std::tuple<float, std::int32_t, std::int32_t, std::int32_t>> found;  // -score, the piece, its parts
  for (const auto& [text, id] : ids)
    for (std::size_t at = utf8_length(text); at > 0 && at < text.size(); at += std::max<std::size_t>(utf8_length(text.substr(at)), 1)) {
      const auto left = ids.find(text.substr(0, at)), right = ids.find(text.substr(at));
      if (left != ids.end() && right != ids.end()) found.emplace_back(-model.pieces[id].score, id, left->second, right->second);
    }
  std::sort(found.begin(), found.end());
  ordered_json merges = ordered_json::array();
  for (const auto& [score, id, left, right] : found) merges.push_back({model.pieces[left].text, model.pieces[right].text});
  return merges;
}

ordered_json replace(const char* kind, const std::string& pattern, const std::string& content) {
  return {{"type", "Replace"}, {"pattern", ordered_json::object({{kind, pattern}})}, {"content", content}};
}

/// What the model does to a text before it looks for pieces.
ordered_json normalizer_of(const SentencePieceModel& model, BlankBefore blank) {
  ordered_json steps = ordered_json::array();
  if (!model.charsmap.empty()) steps.push_back({{"type", "Precompiled"}, {"precompiled_charsmap", to_base64(model.charsmap)}});
  if (model.remove_extra_blanks) {
    steps.push_back(replace("Regex", "\\A +| +\\z", ""));  // blanks alone: Strip would take tabs and line ends, too
    steps.push_back(replace("Regex", " {2,}", " "));
  }
  if (blank == BlankBefore::every_part) {
    std::vector<std::string> whole;  // user-defined pieces are found behind this step, and have no blank before themselves
    for (const auto& piece : model.pieces)
      if (piece.type == PieceType::user_defined) whole.push_back(escaped_for_regex(piece.text));
    const char* first = model.escape_blanks ? metaspace : " ";
    if (whole.empty())
      steps.push_back({{"type", "Prepend"}, {"prepend", first}});
    else
      steps.push_back(replace("Regex", fmt::format("\\A(?!(?:{})\\z)", join(whole, "|")), first));
    if (model.escape_blanks) steps.push_back(replace("String", " ", metaspace));
  }
  return steps.empty() ? ordered_json() : ordered_json{{"type", "Sequence"}, {"normalizers", steps}};
}

ordered_json decoder_of(const SentencePieceModel& model, BlankBefore blank) {
  ordered_json steps = ordered_json::array();
  if (model.escape_blanks) steps.push_back(replace("String", metaspace, " "));
  for (const char* type : {"ByteFallback", "Fuse"}) steps.push_back(ordered_json::object({{"type", type}}));
  if (blank != BlankBefore::never) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", steps}};
}

ordered_json model_of(const SentencePieceModel& model) {
  const auto unknown = std::find_if(model.pieces.begin(), model.pieces.end(), [](const auto& p) { return p.type == PieceType::unknown; });
  const bool has_unknown = unknown != model.pieces.end();
  ordered_json out;
  if (!model.bpe) {
    out = {{"type", "Unigram"}, {"unk_id", has_unknown ? ordered_json(unknown - model.pieces.begin()) : ordered_json()}};
    out["vocab"] = ordered_json::array();
    for (const auto& piece : model.pieces) out["vocab"].push_back({piece.text, piece.score});
    out["byte_fallback"] = model.byte_fallback;
    return out;
  }
  out = {{"type", "BPE"},
         {"dropout", nullptr},
         {"unk_token", nullptr},
         {"continuing_subword_prefix", nullptr},
         {"end_of_word_suffix", nullptr},
         {"fuse_unk", model.joins_unknown},
         {"byte_fallback", model.byte_fallback},
         {"ignore_merges", false}};
  if (has_unknown) out["unk_token"] = unknown->text;
  out["vocab"] = ordered_json::object();
  auto& entries = out["vocab"].get_ref<ordered_json::object_t&>();  // filled directly: inserting by key would search the whole list
  for (std::size_t id = 0; id < model.pieces.size(); ++id) entries.emplace_back(model.pieces[id].text, id);
  out["merges"] = merges_of(model);
  return out;
}

/// Tokens with other names than the model's pieces, as files beside it give them: models keep rows for such.
void rename_pieces(SentencePieceModel& model, const std::vector<AddedTokenEntry>& added) {
  for (const AddedTokenEntry& token : added)
    if (token.id < std::ssize(model.pieces)) {
      SentencePieceModel::Piece& piece = model.pieces[static_cast<std::size_t>(token.id)];
      if (piece.text != token.content) piece = {token.content, 0, token.special ? PieceType::control : PieceType::unused};
    }
}

}  // namespace

std::optional<std::string> sentencepiece_to_json(const std::string& bytes, BlankBefore blank, const std::vector<AddedTokenEntry>& added,
                                                 const std::string& name) {
  SentencePieceModel model = read_sentencepiece(bytes);
  if (model.words || model.blank_behind || !model.escape_blanks) return std::nullopt;
  return sentencepiece_to_json(std::move(model), blank, added, name);
}

std::string sentencepiece_to_json(SentencePieceModel model, BlankBefore blank, const std::vector<AddedTokenEntry>& added,
                                  const std::string& name) {
  rename_pieces(model, added);
  const bool prefixed = model.dummy_prefix && blank != BlankBefore::never;
  if (!prefixed) blank = BlankBefore::never;
  ordered_json file = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"added_tokens", ordered_json::array()}};
  file["normalizer"] = normalizer_of(model, blank);
  file["pre_tokenizer"] = nullptr;
  if (blank != BlankBefore::every_part)
    file["pre_tokenizer"] = {{"type", "Metaspace"},
                             {"replacement", metaspace},
                             {"prepend_scheme", blank == BlankBefore::start ? "first" : "never"},
                             {"split", false}};
  file["post_processor"] = nullptr;
  file["decoder"] = decoder_of(model, blank);
  file["model"] = model_of(model);
  std::vector<AddedTokenEntry> tokens;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const auto& piece = model.pieces[id];
    AddedTokenEntry token;
    token.id = static_cast<std::int32_t>(id);
    token.content = piece.text;
    token.special = piece.type == PieceType::control;
    token.normalized = piece.type == PieceType::user_defined && blank == BlankBefore::every_part;
    if (token.special || piece.type == PieceType::user_defined) tokens.push_back(token);
  }
  for (AddedTokenEntry token : added) {
    token.normalized = false;  // found in the text itself, so that what stands behind it gets its blank
    tokens.push_back(token);
  }
  add_tokens(file, tokens, name);
  return file.dump(1) + "\n";
}

}  // namespace collimate
