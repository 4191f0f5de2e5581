#include "data/sentencepiece_tokenizer.hpp"

#include <sentencepiece_processor.h>

#include <algorithm>

#include "collimate/base/error.hpp"
#include "data/sentencepiece_proto.hpp"
#include "data/tokenizer_added.hpp"

namespace collimate {
namespace {

using Processor = sentencepiece::SentencePieceProcessor;

/// Appended to a ModelProto (sentencepiece_model.proto), whose later fields replace the earlier: in its normalizer_spec, field 3,
/// add_dummy_prefix and remove_extra_whitespaces, fields 3 and 4, become false. So a text is encoded as it stands behind another one.
constexpr std::string_view as_continuation("\x1a\x04\x18\x00\x20\x00", 6);

bool is_user_defined(std::string_view piece) {
  std::uint64_t type = 0;
  while (!piece.empty())
    if (const ProtoField field = take_field(piece); field.number == type_field) type = field.value;
  return type == static_cast<std::uint64_t>(PieceType::user_defined);
}

std::unique_ptr<Processor> make_processor(const std::string& bytes, const std::string& name) {
  auto processor = std::make_unique<Processor>();
  const auto status = processor->LoadFromSerializedProto(absl::string_view(bytes.data(), bytes.size()));
  require(status.ok() && processor->GetPieceSize() > 0, "{}: not a SentencePiece model, or damaged: copy it again", name);
  return processor;
}

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string bytes, std::unique_ptr<Processor> processor, std::unique_ptr<Processor> continuation)
      : Tokenizer({id_or_none(processor->bos_id()), id_or_none(processor->eos_id()), id_or_none(processor->pad_id()),
                   id_or_none(processor->unk_id())},
                  Rule::continuing),
        bytes_(std::move(bytes)),
        processor_(std::move(processor)),
        continuation_(std::move(continuation)) {
    for (std::int32_t id = 0; id < vocabulary(); ++id)
      if (processor_->IsControl(id)) special_.add(processor_->IdToPiece(id), id, true);
  }
  std::string kind() const override { return "sentencepiece"; }
  std::int64_t vocabulary() const override { return processor_->GetPieceSize(); }
  std::string piece(std::int32_t id) const override {
    require(id >= 0 && id < vocabulary(), "token id {} is outside the vocabulary of {}", id, vocabulary());
    return processor_->IdToPiece(id);
  }
  std::optional<std::int32_t> id_of(std::string_view piece) const override {
    const int id = processor_->PieceToId(absl::string_view(piece.data(), piece.size()));
    return processor_->IdToPiece(id) == piece ? std::optional(id) : std::nullopt;
  }
  bool is_special(std::int32_t id) const override { return id >= 0 && id < vocabulary() && processor_->IsControl(id); }
  std::string file_name() const override { return "tokenizer.model"; }
  std::string file_bytes() const override { return bytes_; }

 private:
  static std::optional<std::int32_t> id_or_none(int id) { return id < 0 ? std::nullopt : std::optional(id); }
  std::vector<std::int32_t> encode_text(std::string_view text, Place place, std::span<const TextRange> special_in) const override;
  std::string decode_ids(std::span<const std::int32_t> ids, Place place, bool with_special) const override;

  std::string bytes_;
  std::unique_ptr<Processor> processor_;
  std::unique_ptr<Processor> continuation_;  // the same model for a text behind another one
  AddedTokens special_;
};

std::vector<std::int32_t> SentencePieceTokenizer::encode_text(std::string_view text, Place place,
                                                              std::span<const TextRange> special_in) const {
  std::vector<std::int32_t> ids;
  special_.encode_around(text, special_in, ids, [&](std::string_view part) {
    std::vector<int> run;
    const bool behind = place == Place::behind && part.data() == text.data();
    const auto status = (behind ? continuation_ : processor_)->Encode(absl::string_view(part.data(), part.size()), &run);
    require(status.ok(), "the SentencePiece model cannot encode a text of {} bytes: it is damaged, copy it again", part.size());
    ids.insert(ids.end(), run.begin(), run.end());
  });
  return ids;
}

std::string SentencePieceTokenizer::decode_ids(std::span<const std::int32_t> ids, Place place, bool with_special) const {
  std::string text;
  std::vector<int> run;
  const auto finish_run = [&] {
    if (run.empty()) return;
    std::string part;
    const auto status = (place == Place::behind ? continuation_ : processor_)->Decode(run, &part);
    require(status.ok(), "the SentencePiece model cannot decode {} tokens: it is damaged, copy it again", run.size());
    text += part;
    run.clear();
  };
  for (const std::int32_t id : ids) {
    if (!is_special(id)) {
      run.push_back(id);
    } else if (with_special) {
      finish_run();
      text += processor_->IdToPiece(id);
    }
  }
  finish_run();
  return text;
}

}  // namespace

std::string with_control_pieces(const std::string& bytes, std::span<const std::int32_t> ids) {
  const std::string as_control = varint(type_field << 3) + varint(static_cast<std::uint64_t>(PieceType::control));  // behind the piece's own type, which it replaces
  std::string out;
  std::int32_t id = 0;
  for (std::string_view rest = bytes; !rest.empty();) {
    const ProtoField field = take_field(rest);
    const bool wanted = field.number == pieces_field && std::find(ids.begin(), ids.end(), id) != ids.end();
    if (field.number == pieces_field) ++id;
    if (wanted && is_user_defined(field.content))
      out.append(varint(pieces_field << 3 | 2))
          .append(varint(field.content.size() + as_control.size()))
          .append(field.content)
          .append(as_control);
    else
      out.append(field.whole);
  }
  return out;
}

std::unique_ptr<Tokenizer> parse_sentencepiece(const std::string& bytes, const std::string& name) {
  return std::make_unique<SentencePieceTokenizer>(bytes, make_processor(bytes, name),
                                                  make_processor(bytes + std::string(as_continuation), name));
}

}  // namespace collimate
