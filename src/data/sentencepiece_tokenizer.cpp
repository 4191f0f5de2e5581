#include "data/sentencepiece_tokenizer.hpp"

#include <sentencepiece_processor.h>

#include "collimate/base/error.hpp"
#include "data/tokenizer_added.hpp"

namespace collimate {
namespace {

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string bytes, std::unique_ptr<sentencepiece::SentencePieceProcessor> processor)
      : Tokenizer({id_or_none(processor->bos_id()), id_or_none(processor->eos_id()), id_or_none(processor->pad_id()),
                   id_or_none(processor->unk_id())}),
        bytes_(std::move(bytes)),
        processor_(std::move(processor)) {
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
  std::vector<std::int32_t> encode_text(std::string_view text, bool with_special) const override;
  std::string decode_ids(std::span<const std::int32_t> ids, bool with_special) const override;
  std::string decode_run(const std::vector<int>& ids) const;

  std::string bytes_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  AddedTokens special_;
};

std::vector<std::int32_t> SentencePieceTokenizer::encode_text(std::string_view text, bool with_special) const {
  std::vector<std::int32_t> ids;
  special_.encode_around(text, with_special, ids, [&](std::string_view part) {
    std::vector<int> run;
    const auto status = processor_->Encode(absl::string_view(part.data(), part.size()), &run);
    require(status.ok(), "SentencePiece cannot encode a text of {} bytes: {}", part.size(), status.ToString());
    ids.insert(ids.end(), run.begin(), run.end());
  });
  return ids;
}

std::string SentencePieceTokenizer::decode_run(const std::vector<int>& ids) const {
  std::string text;
  const auto status = processor_->Decode(ids, &text);
  require(status.ok(), "SentencePiece cannot decode {} tokens: {}", ids.size(), status.ToString());
  return text;
}

std::string SentencePieceTokenizer::decode_ids(std::span<const std::int32_t> ids, bool with_special) const {
  std::string text;
  std::vector<int> run;
  for (const std::int32_t id : ids) {
    if (!is_special(id)) {
      run.push_back(id);
    } else if (with_special) {
      text += decode_run(run) + processor_->IdToPiece(id);
      run.clear();
    }
  }
  return text + decode_run(run);
}

}  // namespace

std::unique_ptr<Tokenizer> parse_sentencepiece(const std::string& bytes, const std::string& name) {
  auto processor = std::make_unique<sentencepiece::SentencePieceProcessor>();
  const auto status = processor->LoadFromSerializedProto(absl::string_view(bytes.data(), bytes.size()));
  require(status.ok() && processor->GetPieceSize() > 0, "{}: not a SentencePiece model, or damaged ({})", name, status.ToString());
  return std::make_unique<SentencePieceTokenizer>(bytes, std::move(processor));
}

}  // namespace collimate
