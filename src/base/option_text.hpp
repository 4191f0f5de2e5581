#pragma once
// How the values of options are written and read: shared by the option table's parts, not public.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace collimate {

/// One `key = value` line of a deck.
struct DeckLine {
  std::string section, key, value;
  int line;
};

/// The lines of a deck; errors name file and line.
std::vector<DeckLine> read_deck_lines(std::string_view text, const std::string& file);
/// The value as it stands in a deck: in quotes where it would not read back otherwise.
std::string deck_value(const std::string& value);

bool read_whole(std::string_view text, std::int64_t& value);
bool read_real(std::string_view text, double& value);  ///< finite
bool read_bool(std::string_view text, bool& value);    ///< true, false, yes, no, on, off, 1, 0

}  // namespace collimate
