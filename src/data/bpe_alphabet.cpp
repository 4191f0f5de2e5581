#include "data/bpe_alphabet.hpp"

#include <cstdint>

namespace collimate {
namespace {

constexpr bool prints(int byte) { return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174; }

struct Alphabet {
  std::array<std::uint16_t, 256> code{};   // of a byte
  std::array<std::int16_t, 324> byte{};    // of a code point, -1 for none
  constexpr Alphabet() {
    for (auto& b : byte) b = -1;
    int next = 256;
    for (int b = 0; b < 256; ++b) {
      code[b] = static_cast<std::uint16_t>(prints(b) ? b : next++);
      byte[code[b]] = static_cast<std::int16_t>(b);
    }
  }
};
constexpr Alphabet alphabet;

}  // namespace

void append_utf8(std::string& out, char32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else {
    out += static_cast<char>(0xC0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

std::string bytes_to_alphabet(std::string_view bytes) {
  std::string out;
  out.reserve(2 * bytes.size());
  for (const char c : bytes) append_utf8(out, alphabet.code[static_cast<unsigned char>(c)]);
  return out;
}

std::optional<std::string> alphabet_to_bytes(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0 || length > 2) return std::nullopt;
    const auto first = static_cast<unsigned char>(text[0]);
    const unsigned code = length == 1 ? first : (first & 0x1Fu) << 6 | (static_cast<unsigned char>(text[1]) & 0x3Fu);
    if (code >= alphabet.byte.size() || alphabet.byte[code] < 0) return std::nullopt;
    out += static_cast<char>(alphabet.byte[code]);
    text.remove_prefix(length);
  }
  return out;
}

std::array<unsigned char, 256> alphabet_order() {
  std::array<unsigned char, 256> order{};
  int n = 0;
  for (const bool printing : {true, false})
    for (int b = 0; b < 256; ++b)
      if (prints(b) == printing) order[n++] = static_cast<unsigned char>(b);
  return order;
}

}  // namespace collimate
