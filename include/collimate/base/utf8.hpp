#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace collimate {

/// Position of the first byte that is not UTF-8 (RFC 3629), or npos.
std::size_t find_invalid_utf8(std::string_view text);
/// Bytes of the character that the text begins with (RFC 3629); 0 where it begins with none.
std::size_t utf8_length(std::string_view text);

/// The text with U+FFFD for every byte that is no part of a character: what standard output and JSON get.
std::string as_utf8(std::string_view text);

/// The text without the beginning of a character at its end, which more bytes may complete.
std::string_view whole_characters(std::string_view text);

}  // namespace collimate
