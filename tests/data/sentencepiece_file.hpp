#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace collimate {

struct Piece {
  std::string text;
  float score;
  int type = 1;  // SentencePiece: 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte
};

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

/// A ModelProto written by hand (sentencepiece_model.proto): pieces 1, trainer_spec 2, normalizer_spec 3; all fields below 128 bytes.
inline std::string sentencepiece_file(const std::vector<Piece>& pieces, bool tidy = false, bool bytes = false) {
  const auto field = [](int number, const std::string& bytes) {
    return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} + bytes;
  };
  const auto number = [](int number, int value) { return std::string{static_cast<char>(number << 3), static_cast<char>(value)}; };
  std::string file;
  for (const Piece& piece : pieces) file += field(1, field(1, piece.text) + "\x15" + raw(piece.score) + number(3, piece.type));
  file += field(2, number(3, 2) + (bytes ? std::string("\x98\x02\x01") : ""));  // model_type BPE; byte_fallback, field 35
  // dummy prefix, keep spaces (tidy: only one between words), escape them
  return file + field(3, field(1, "identity") + number(3, 1) + number(4, tidy ? 1 : 0) + number(5, 1));
}

}  // namespace collimate
