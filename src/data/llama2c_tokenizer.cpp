#include "data/llama2c_tokenizer.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <unordered_map>
#include <unordered_set>

#include "collimate/base/error.hpp"
#include "data/bpe_merges.hpp"
#include "data/sentencepiece_json.hpp"
#include "data/tokenizer_added.hpp"
#include "data/unicode.hpp"

namespace collimate {
namespace {

struct ScoredPiece {
  std::string text;
  float score = 0;
};

constexpr std::int32_t unknown_id = 0, bos_id = 1, eos_id = 2, first_byte_id = 3;  // fixed by run.c

bool has_byte_pieces(const std::vector<ScoredPiece>& pieces) {
  bool all = pieces.size() >= first_byte_id + 256;
  for (std::size_t byte = 0; byte < 256 && all; ++byte) all = pieces[first_byte_id + byte].text == fmt::format("<0x{:02X}>", byte);
  return all;
}

/// The algorithm of run.c (karpathy/llama2.c, functions encode and decode): a space is put before every text, even before a space;
/// then the neighbouring pair whose concatenation has the highest score is merged, of equal ones the leftmost.
class Llama2cTokenizer : public Tokenizer {
 public:
  Llama2cTokenizer(std::string bytes, std::vector<ScoredPiece> pieces)
      : Tokenizer({bos_id, eos_id, std::nullopt, unknown_id}, Rule::continuing), bytes_(std::move(bytes)), pieces_(std::move(pieces)) {
    for (std::size_t id = 0; id < pieces_.size(); ++id) id_of_.emplace(pieces_[id].text, static_cast<std::int32_t>(id));
    byte_fallback_ = has_byte_pieces(pieces_);
    for (const std::int32_t id : {bos_id, eos_id}) special_.add(piece(id), id, true);
    find_merges();
  }
  std::string kind() const override { return "llama2c"; }
  std::int64_t vocabulary() const override { return static_cast<std::int64_t>(pieces_.size()); }
  std::string piece(std::int32_t id) const override;
  std::optional<std::int32_t> id_of(std::string_view piece) const override;
  bool is_special(std::int32_t id) const override { return id >= 0 && id < first_byte_id; }
  std::string file_name() const override { return "tokenizer.bin"; }
  std::string file_bytes() const override { return bytes_; }

 private:
  void find_merges();
  void append_character(std::string_view character, std::vector<std::int32_t>& ids) const;
  void append_plain(std::string_view text, bool with_blank, std::vector<std::int32_t>& ids) const;
  std::vector<std::int32_t> encode_text(std::string_view text, Place place, std::span<const TextRange> special_in) const override;
  std::string decode_ids(std::span<const std::int32_t> ids, Place place, bool with_special) const override;

  std::string bytes_;
  std::vector<ScoredPiece> pieces_;
  std::unordered_map<std::string, std::int32_t> id_of_;
  MergeTable merges_;
  AddedTokens special_;
  bool byte_fallback_ = false;
};

// A merge is a piece and a cut of it into two pieces; equal scores have equal ranks.
void Llama2cTokenizer::find_merges() {
  constexpr float lowest = -1e10f;  // run.c merges above it only
  std::vector<std::int32_t> order;
  for (std::size_t id = 0; id < pieces_.size(); ++id)
    if (pieces_[id].score > lowest) order.push_back(static_cast<std::int32_t>(id));
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return pieces_[a].score > pieces_[b].score; });
  std::int32_t rank = -1;
  float score = 0;
  for (const std::int32_t id : order) {
    const auto& [text, own] = pieces_[id];
    if (rank < 0 || own != score) ++rank, score = own;
    if (id_of_.at(text) != id) continue;
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = id_of_.find(text.substr(0, cut)), right = id_of_.find(text.substr(cut));
      if (left != id_of_.end() && right != id_of_.end()) merges_.insert(left->second, right->second, {rank, id});
    }
  }
}

std::string Llama2cTokenizer::piece(std::int32_t id) const {
  require(id >= 0 && id < vocabulary(), "token id {} is outside the vocabulary of {}", id, vocabulary());
  std::string text = pieces_[id].text;
  if (id == bos_id || id == eos_id) std::erase(text, '\n');  // written as "\n<s>\n"
  return text;
}

std::optional<std::int32_t> Llama2cTokenizer::id_of(std::string_view name) const {
  for (const std::int32_t id : {bos_id, eos_id})
    if (piece(id) == name) return id;
  const auto found = id_of_.find(std::string(name));
  return found == id_of_.end() ? std::nullopt : std::optional(found->second);
}

void Llama2cTokenizer::append_character(std::string_view character, std::vector<std::int32_t>& ids) const {
  const auto found = id_of_.find(std::string(character));
  if (found != id_of_.end()) {
    ids.push_back(found->second);
  } else if (byte_fallback_) {
    for (const char c : character) ids.push_back(first_byte_id + static_cast<unsigned char>(c));
  } else {
    ids.push_back(unknown_id);
  }
}

void Llama2cTokenizer::append_plain(std::string_view text, bool with_blank, std::vector<std::int32_t>& ids) const {
  if (text.empty()) return;
  std::vector<std::int32_t> symbols;
  if (with_blank) append_character(" ", symbols);
  // A character is a byte and the continuation bytes after it, at most four in all.
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = begin + 1;
    while (end < text.size() && end - begin < 4 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
    append_character(text.substr(begin, end - begin), symbols);
    begin = end;
  }
  MergeTable::Scratch scratch;
  merges_.apply(symbols, scratch);
  ids.insert(ids.end(), symbols.begin(), symbols.end());
}

std::vector<std::int32_t> Llama2cTokenizer::encode_text(std::string_view text, Place place, std::span<const TextRange> special_in) const {
  std::vector<std::int32_t> ids;
  special_.encode_around(text, special_in, ids,
                         [&](std::string_view part) { append_plain(part, place != Place::behind || part.data() != text.data(), ids); });
  return ids;
}

std::string Llama2cTokenizer::decode_ids(std::span<const std::int32_t> ids, Place place, bool with_special) const {
  std::string text;
  bool first = place != Place::behind;  // of the tokens of a plain text, which begins with a space that encode() added
  for (const std::int32_t id : ids) {
    if (is_special(id)) {
      if (with_special) text += piece(id);
      first = first || with_special;
      continue;
    }
    const bool byte = byte_fallback_ && id >= first_byte_id && id < first_byte_id + 256;
    std::string_view part = pieces_[id].text;
    if (first && part.starts_with(' ')) part.remove_prefix(1);
    first = false;
    if (byte)
      text += static_cast<char>(id - first_byte_id);
    else
      text += part;
  }
  return text;
}

std::vector<ScoredPiece> read_pieces(const std::string& bytes, const std::string& name) {
  std::size_t at = 0;
  const auto take = [&](auto& value) {
    if (bytes.size() - at < sizeof value) return false;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    at += sizeof value;
    return true;
  };
  std::int32_t longest = 0;
  require(take(longest) && longest > 0 && longest < 1 << 20, "{}: not a llama2.c tokenizer: its first number, the longest piece, is {}",
          name, longest);
  std::vector<ScoredPiece> pieces;
  while (at < bytes.size()) {
    ScoredPiece piece;
    std::int32_t length = 0;
    const bool whole = take(piece.score) && take(length) && length >= 0 && static_cast<std::size_t>(length) <= bytes.size() - at;
    require(whole && length <= longest && std::isfinite(piece.score), "{}: token {} at byte {} is {}: is the file damaged or cut short?",
            name, pieces.size(), at, whole ? "not a score and a piece of legal length" : "incomplete");
    piece.text = bytes.substr(at, length);
    at += length;
    pieces.push_back(std::move(piece));
  }
  require(pieces.size() > 3, "{}: only {} tokens; llama2.c needs <unk>, <s>, </s> and at least one more", name, pieces.size());
  return pieces;
}

}  // namespace

std::unique_ptr<Tokenizer> parse_llama2c(const std::string& bytes, const std::string& name) {
  return std::make_unique<Llama2cTokenizer>(bytes, read_pieces(bytes, name));
}

std::optional<std::string> llama2c_to_json(const std::string& bytes, const std::string& name) {
  const std::vector<ScoredPiece> pieces = read_pieces(bytes, name);
  SentencePieceModel model;
  model.bpe = true;
  model.byte_fallback = has_byte_pieces(pieces);
  model.joins_unknown = model.escape_blanks = model.remove_extra_blanks = false;
  std::unordered_set<std::string> known;
  for (std::int32_t id = 0; id < std::ssize(pieces); ++id) {
    SentencePieceModel::Piece piece{pieces[static_cast<std::size_t>(id)].text, pieces[static_cast<std::size_t>(id)].score,
                                    PieceType::normal};
    if (id == unknown_id) piece.type = PieceType::unknown;
    if (id == bos_id || id == eos_id) {
      piece.type = PieceType::control;
      std::erase(piece.text, '\n');
    }
    if (model.byte_fallback && id >= first_byte_id && id < first_byte_id + 256) piece.type = PieceType::byte;
    bool characters = true;
    for_each_run(piece.text, [&](std::string_view, bool valid) { characters = characters && valid; });
    if (!characters) return std::nullopt;
    // A text that an earlier piece has, too: no text gets this id.
    if (piece.text.empty() || !known.insert(piece.text).second) piece = {fmt::format("<|unused_{}|>", id), 0, PieceType::unused};
    model.pieces.push_back(std::move(piece));
  }
  return sentencepiece_to_json(std::move(model), BlankBefore::every_part, {}, name);
}

}  // namespace collimate
