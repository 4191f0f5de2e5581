#include "collimate/base/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>

namespace collimate {
namespace {

constexpr std::array<const char*, 5> binary_units = {"B", "KiB", "MiB", "GiB", "TiB"};
constexpr std::array<const char*, 5> decimal_units = {"B", "kB", "MB", "GB", "TB"};

}  // namespace

std::string_view trim(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  if (trim(text).empty()) return parts;
  for (std::size_t begin = 0;;) {
    const std::size_t end = text.find(separator, begin);
    parts.emplace_back(trim(text.substr(begin, end == std::string_view::npos ? end : end - begin)));
    if (end == std::string_view::npos) return parts;
    begin = end + 1;
  }
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  return fmt::format("{}", fmt::join(parts, separator));
}

std::string replace_all(std::string text, std::string_view from, std::string_view to) {
  std::size_t done = 0, at = text.find(from);
  if (at == std::string::npos) return text;
  std::string out;
  for (; at != std::string::npos; at = text.find(from, done)) {
    out.append(text, done, at - done).append(to);
    done = at + from.size();
  }
  return out.append(text, done);
}

std::string shell_word(std::string_view text) {
  constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,+@%";
  if (!text.empty() && text.find_first_not_of(plain) == std::string_view::npos) return std::string(text);
  return fmt::format("'{}'", replace_all(std::string(text), "'", "'\\''"));
}

std::string human_bytes(std::int64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1023.95 && unit + 1 < binary_units.size(); ++unit) value /= 1024.0;
  return fmt::format("{:.1f} {}", value, binary_units[unit]);
}

std::string counted(std::int64_t n, std::string_view noun) { return fmt::format("{} {}{}", n, noun, n == 1 ? "" : "s"); }

std::string human_duration(double seconds) {
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  if (seconds < 59.5) return fmt::format("{:.0f} s", seconds);
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  const std::int64_t minutes = (whole + 30) / 60;
  return fmt::format("{} h {:02} min", minutes / 60, minutes % 60);
}

std::string exact_bytes(std::int64_t bytes) {
  std::size_t unit = 0;
  for (; bytes != 0 && bytes % 1024 == 0 && unit + 1 < binary_units.size(); ++unit) bytes /= 1024;
  return unit ? fmt::format("{}{}", bytes, binary_units[unit]) : fmt::format("{}", bytes);
}

bool read_bytes(std::string_view text, std::int64_t& bytes) {
  text = trim(text);
  const std::size_t number_end = std::min(text.find_first_not_of("0123456789."), text.size());
  const std::string_view number = text.substr(0, number_end), unit = trim(text.substr(number_end));
  double factor = unit.empty() ? 1.0 : 0.0;
  for (std::size_t i = 0; i < binary_units.size(); ++i) {
    if (unit == binary_units[i]) factor = std::pow(1024.0, static_cast<double>(i));
    if (unit == decimal_units[i]) factor = std::pow(1000.0, static_cast<double>(i));
  }
  if (factor == 0.0) return false;
  if (std::int64_t whole = 0; factor == 1.0 || number.find('.') == std::string_view::npos) {
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), whole);
    if (error != std::errc() || end != number.data() + number.size()) return false;
    const auto scale = static_cast<std::int64_t>(factor);
    if (whole > std::numeric_limits<std::int64_t>::max() / scale) return false;
    bytes = whole * scale;
    return true;
  }
  double value = 0.0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (error != std::errc() || end != number.data() + number.size() || value * factor > 9e18) return false;
  bytes = static_cast<std::int64_t>(value * factor);
  return static_cast<double>(bytes) == value * factor;
}

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 0; i < a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i) + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const int replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, replaced});
    }
  }
  return row.back();
}

std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates, std::string_view dashes) {
  const auto last_part = [](std::string_view text) { return text.substr(text.rfind('.') + 1); };
  // A name without its section, or the beginning of a name, is as near as a slip of one letter.
  const auto distance = [&](const std::string& candidate) {
    const bool part = last_part(candidate) == name || (name.size() > 2 && candidate.starts_with(name));
    return part ? 1 : edit_distance(name, candidate);
  };
  const auto nearer = [&](const std::string& a, const std::string& b) { return distance(a) < distance(b); };
  const auto found = std::min_element(candidates.begin(), candidates.end(), nearer);
  const int most = name.size() > 4 ? 2 : 1;
  if (found == candidates.end() || distance(*found) > most) return "";
  return fmt::format("did you mean {}{}?", dashes, *found);
}

std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace collimate
