#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace collimate {

/// A field of a protobuf message (protobuf.dev/programming-guides/encoding).
struct ProtoField {
  std::uint64_t number = 0, value = 0;        // value: of a varint, or the bits of a fixed number
  std::string_view whole = {}, content = {};  // content: of a string or message
};
ProtoField take_field(std::string_view& rest);
std::string varint(std::uint64_t value);

// Of sentencepiece_model.proto: ModelProto.pieces, SentencePiece.type and values of that.
constexpr std::uint64_t pieces_field = 1, type_field = 3;
enum class PieceType { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

/// What a SentencePiece model says of its pieces and of how it prepares a text.
struct SentencePieceModel {
  struct Piece {
    std::string text;
    float score = 0;
    PieceType type = PieceType::normal;
  };
  std::vector<Piece> pieces;
  bool bpe = false;  ///< else Unigram, unless `words`
  bool words = false;  ///< models of words or characters
  bool byte_fallback = false;
  bool joins_unknown = true;  ///< neighbouring characters without a piece are one unknown token, else one each
  std::string charsmap;  ///< of the normalizer; "": none
  bool dummy_prefix = true, remove_extra_blanks = true, escape_blanks = true, blank_behind = false;
};
SentencePieceModel read_sentencepiece(std::string_view bytes);

}  // namespace collimate
