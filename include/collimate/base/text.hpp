#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace collimate {

std::string_view trim(std::string_view text);  ///< without blanks, tabs and line ends at both ends
/// The parts between separators, each trimmed; no parts for blank text.
std::vector<std::string> split(std::string_view text, char separator);
std::string join(const std::vector<std::string>& parts, std::string_view separator);
std::string replace_all(std::string text, std::string_view from, std::string_view to);  ///< from must not be empty

/// The text as one word of a shell's command line: in single quotes where it holds more than letters, digits and _-./:=,+@%.
std::string shell_word(std::string_view text);

std::string counted(std::int64_t n, std::string_view noun);  ///< "1 step", "2 steps"
std::string human_bytes(std::int64_t bytes);     ///< "1.5 GiB", "12 B"
std::string human_duration(double seconds);      ///< "0.3 s", "12 s", "4 min 05 s", "2 h 03 min"
std::string exact_bytes(std::int64_t bytes);     ///< "2GiB" where the unit divides, else "1234"; read_bytes gives it back
/// "2GiB", "512 MiB", "1.5KiB", "1GB" (powers of 1000) or a plain number; false if it is none of these or not whole.
bool read_bytes(std::string_view text, std::int64_t& bytes);

/// Levenshtein's distance: how many characters must be inserted, removed or replaced.
int edit_distance(std::string_view a, std::string_view b);
/// "did you mean --sft.rate?": the candidate that differs in one or two letters, begins so, or lacks only its section; empty if there is none.
std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates, std::string_view dashes = "");

/// FNV-1a, 64 bits: to compare texts, not to protect them.
std::uint64_t fnv1a(std::string_view text);

}  // namespace collimate
