#pragma once
#include <cstddef>
#include <string_view>

namespace collimate {

/// Position of the first byte that is not UTF-8 (RFC 3629), or npos.
std::size_t find_invalid_utf8(std::string_view text);

}  // namespace collimate
