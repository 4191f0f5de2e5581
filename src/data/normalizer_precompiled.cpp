#include <array>
#include <cstdint>
#include <optional>

#include "collimate/base/error.hpp"
#include "data/normalizer.hpp"
#include "data/unicode.hpp"

namespace collimate {
namespace {

std::string decode_base64(const std::string& text, const std::string& place) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : std::string_view(text).substr(0, text.find('='))) {
    const std::size_t digit = digits.find(c);
    require(digit != std::string_view::npos, "{}: its \"precompiled_charsmap\" is not base64: is the file complete?", place);
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    count += 6;
    if (count >= 8) out += static_cast<char>(bits >> (count -= 8) & 0xFF);
  }
  return out;
}

/// A double array (Darts: 32-bit units; Yata's darts-clone has the layout), whose values are places in a list of strings that end with NUL.
/// Its table is asked for a whole grapheme cluster of less than 6 bytes, then for each code point; the shortest entry that the asked text
/// begins with replaces all of it, as in the tokenizers package.
class Precompiled : public Normalizer {
 public:
  Precompiled(const std::string& map, const std::string& place) {
    const auto number = [&](std::size_t at) {
      std::uint32_t value = 0;
      for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(map[at + i]);
      return value;
    };
    require(map.size() >= 4 && number(0) <= map.size() - 4 && number(0) % 4 == 0 && number(0) > 0,
            "{}: its \"precompiled_charsmap\" is damaged: copy the file again", place);
    for (std::size_t at = 4; at < 4 + number(0); at += 4) units_.push_back(number(at));
    strings_ = map.substr(4 + number(0));
  }
  void apply(std::string& text, Edge) const override {
    std::string out;
    for_each_run(text, [&](std::string_view run, bool valid) {
      if (!valid) out += run;
      else for_each_grapheme(run, [&](std::string_view cluster) { append(out, cluster); });
    });
    text = std::move(out);
  }

 private:
  void append(std::string& out, std::string_view cluster) const {
    constexpr std::size_t longest = 6;  // from here on a cluster is not asked for
    if (cluster.size() < longest)
      if (const auto whole = find(cluster)) {
        out += *whole;
        return;
      }
    while (!cluster.empty()) {
      const std::string_view from = cluster;
      take_code(cluster);
      const std::string_view part = from.substr(0, from.size() - cluster.size());
      out += find(part).value_or(part);
    }
  }

  std::optional<std::string_view> find(std::string_view key) const {
    const auto offset = [](std::uint32_t unit) { return unit >> 10 << ((unit & (1u << 9)) >> 6); };
    std::size_t node = offset(units_[0]);
    for (const char c : key) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte == 0) return std::nullopt;
      node ^= byte;
      if (node >= units_.size()) return std::nullopt;
      const std::uint32_t unit = units_[node];
      if ((unit & (1u << 31 | 0xFF)) != byte) return std::nullopt;
      node ^= offset(unit);
      if ((unit >> 8 & 1) == 0) continue;
      const std::size_t place = node < units_.size() ? units_[node] & ~(1u << 31) : strings_.size();
      if (place >= strings_.size()) return std::nullopt;
      const std::string_view rest = std::string_view(strings_).substr(place);
      return rest.substr(0, rest.find('\0'));
    }
    return std::nullopt;
  }

  std::vector<std::uint32_t> units_;
  std::string strings_;
};

}  // namespace

std::unique_ptr<Normalizer> make_precompiled_normalizer(const std::string& base64, const std::string& place) {
  return std::make_unique<Precompiled>(decode_base64(base64, place), place);
}

}  // namespace collimate
