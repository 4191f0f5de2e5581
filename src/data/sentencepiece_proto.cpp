#include "data/sentencepiece_proto.hpp"

#include <bit>
#include <cstring>

namespace collimate {
namespace {

std::uint64_t take_varint(std::string_view& rest) {
  std::uint64_t value = 0;
  for (int shift = 0; !rest.empty() && shift < 64; shift += 7) {
    const auto byte = static_cast<unsigned char>(rest.front());
    rest.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return value;
}

SentencePieceModel::Piece read_piece(std::string_view message) {
  SentencePieceModel::Piece piece;
  while (!message.empty()) {
    const ProtoField field = take_field(message);
    if (field.number == 1) piece.text = field.content;
    if (field.number == 2) piece.score = std::bit_cast<float>(static_cast<std::uint32_t>(field.value));
    if (field.number == type_field) piece.type = static_cast<PieceType>(field.value);
  }
  return piece;
}

}  // namespace

ProtoField take_field(std::string_view& rest) {
  const std::string_view all = rest;
  const std::uint64_t tag = take_varint(rest), wire = tag & 7;
  ProtoField field{.number = tag >> 3};
  std::uint64_t length = wire == 1 ? 8 : wire == 5 ? 4 : 0;
  if (wire == 0) field.value = take_varint(rest);
  if (wire == 2) length = take_varint(rest);
  field.content = rest.substr(0, length);
  if (wire == 5 || wire == 1) std::memcpy(&field.value, field.content.data(), field.content.size());
  rest.remove_prefix(field.content.size());
  field.whole = all.substr(0, all.size() - rest.size());
  return field;
}

std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out += static_cast<char>(value);
}

SentencePieceModel read_sentencepiece(std::string_view bytes) {
  constexpr std::uint64_t trainer = 2, normalizer = 3;  // of ModelProto
  SentencePieceModel model;
  while (!bytes.empty()) {
    const ProtoField part = take_field(bytes);
    if (part.number == pieces_field) model.pieces.push_back(read_piece(part.content));
    std::string_view rest = part.number == trainer || part.number == normalizer ? part.content : std::string_view();
    while (!rest.empty()) {
      const ProtoField field = take_field(rest);
      const std::uint64_t name = part.number * 1000 + field.number;
      if (name == 2003) model.bpe = field.value == 2, model.words = field.value > 2;
      if (name == 2024) model.blank_behind = field.value != 0;
      if (name == 2035) model.byte_fallback = field.value != 0;
      if (name == 3002) model.charsmap = field.content;
      if (name == 3003) model.dummy_prefix = field.value != 0;
      if (name == 3004) model.remove_extra_blanks = field.value != 0;
      if (name == 3005) model.escape_blanks = field.value != 0;
    }
  }
  return model;
}

}  // namespace collimate
