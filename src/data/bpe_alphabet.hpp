#pragma once
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "collimate/base/utf8.hpp"

namespace collimate {

// GPT-2 files write each byte as one printable character: bytes that print stand for themselves, the other 68 are
// U+0100, U+0101, ... in byte order (openai/gpt-2, src/encoder.py, bytes_to_unicode).

std::string bytes_to_alphabet(std::string_view bytes);
/// Nothing where the text has a character outside the alphabet.
std::optional<std::string> alphabet_to_bytes(std::string_view text);
/// The 256 bytes in the order of their ids in GPT-2: first those that print, then the others.
std::array<unsigned char, 256> alphabet_order();
/// Appends a code point below U+0800.
void append_utf8(std::string& out, char32_t code);

}  // namespace collimate
