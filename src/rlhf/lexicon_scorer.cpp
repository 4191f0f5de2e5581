#include <charconv>
#include <cmath>
#include <fstream>
#include <unordered_map>

#include "collimate/base/error.hpp"
#include "collimate/rlhf/scorer.hpp"

namespace collimate::rlhf {
namespace {

/// A run of letters and digits, and what joins it to the run before: ' ', '-' or '\'', or 0 for anything else (and at the start).
struct Word {
  std::string text;
  char joint = 0;
};

bool is_ascii_word(unsigned char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// Bytes of the UTF-8 character at `text`[i]; broken UTF-8 goes byte by byte.
std::size_t character_length(std::string_view text, std::size_t i) {
  const auto c = static_cast<unsigned char>(text[i]);
  const std::size_t wanted = c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
  std::size_t length = 1;
  while (length < wanted && i + length < text.size() && (static_cast<unsigned char>(text[i + length]) & 0xC0) == 0x80) ++length;
  return length;
}

/// Non-ASCII characters count as letters, but for Latin-1 signs (U+0080-00BF) and general punctuation (U+2000-206F: dashes, curly
/// quotes, the ellipsis).
bool is_word(std::string_view character) {
  const auto c = static_cast<unsigned char>(character[0]);
  if (c < 0x80) return is_ascii_word(c);
  if (c == 0xC2) return false;
  if (c != 0xE2 || character.size() < 3) return true;
  const auto second = static_cast<unsigned char>(character[1]), third = static_cast<unsigned char>(character[2]);
  return !(second == 0x80 || (second == 0x81 && third < 0xB0));
}

char joint_of(std::string_view character) {
  if (character == " " || character == "\t" || character == "\n" || character == "\r") return ' ';
  if (character == "-") return '-';
  return character == "'" || character == "\u2019" ? '\'' : 0;
}

std::vector<Word> words_of(std::string_view text) {
  std::vector<Word> words;
  char joint = 0;
  bool between = true, fresh = true;  // not inside a word; no character since the last word
  for (std::size_t i = 0; i < text.size();) {
    const std::string_view character = text.substr(i, character_length(text, i));
    i += character.size();
    if (is_word(character)) {
      if (between) words.push_back({"", words.empty() ? '\0' : joint});
      for (const char c : character) words.back().text += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
      between = false;
      fresh = true;
      continue;
    }
    const char next = joint_of(character);
    joint = fresh ? next : (next == ' ' && joint == ' ' ? ' ' : '\0');  // blanks may repeat, "--" and ", " join nothing
    between = true;
    fresh = false;
  }
  return words;
}

class LexiconScorer final : public Scorer {
 public:
  LexiconScorer(const std::string& file, double factor) : factor_(factor) {
    require(std::isfinite(factor) && factor != 0, "the lexicon's factor is {}; give 1, -1 or another number", factor);
    std::ifstream input(file);
    require(input.good(), "the lexicon '{}' cannot be opened; give a file of lines word<TAB>value", file);
    std::string line;
    for (int number = 1; std::getline(input, line); ++number) add(line, file, number);
    require(!values_.empty(), "the lexicon '{}' has no entries; give a file of lines word<TAB>value", file);
  }

  std::vector<double> score(std::span<const ScoredSample> samples) override {
    std::vector<double> scores;
    for (const ScoredSample& sample : samples) scores.push_back(factor_ * value_of(sample.response));
    return scores;
  }

 private:
  void add(std::string line, const std::string& file, int number) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) return;
    const std::size_t tab = line.rfind('\t');
    require(tab != std::string::npos, "line {} of the lexicon '{}' has no tab: '{}'; write word<TAB>value", number, file, line);
    const char* end = line.data() + line.size();
    double value = 0;
    const auto [stop, problem] = std::from_chars(line.data() + tab + 1, end, value);
    require(problem == std::errc() && stop == end && std::isfinite(value), "line {} of the lexicon '{}': '{}' is no number", number, file,
            line.substr(tab + 1));
    const std::vector<Word> words = words_of(std::string_view(line).substr(0, tab));
    require(!words.empty(), "line {} of the lexicon '{}': '{}' has no letter, so it would never be found", number, file,
            line.substr(0, tab));
    std::string key;
    for (std::size_t i = 0; i < words.size(); ++i) {
      require(i == 0 || words[i].joint,
              "line {} of the lexicon '{}': the words of '{}' may be joined by blanks, a hyphen or an apostrophe only", number, file,
              line.substr(0, tab));
      append(key, words[i]);
    }
    const auto [place, fresh] = values_.emplace(key, value);
    require(fresh || place->second == value, "line {} of the lexicon '{}' gives '{}' the value {} where an earlier line gave {}", number,
            file, key, value, place->second);
    longest_ = std::max(longest_, words.size());
  }

  static void append(std::string& key, const Word& word) {
    if (!key.empty()) key += word.joint;
    key += word.text;
  }

  double value_of(std::string_view text) const {
    const std::vector<Word> words = words_of(text);
    double sum = 0;
    for (std::size_t i = 0; i < words.size();) {
      std::string key;
      std::size_t used = 1;
      double value = 0;
      for (std::size_t n = 0; n < longest_ && i + n < words.size() && (n == 0 || words[i + n].joint); ++n) {
        append(key, words[i + n]);
        const auto found = values_.find(key);
        if (found == values_.end()) continue;
        value = found->second;
        used = n + 1;
      }
      sum += value;
      i += used;
    }
    return sum;
  }

  double factor_;
  std::unordered_map<std::string, double> values_;
  std::size_t longest_ = 0;  ///< words of the longest entry
};

}  // namespace

std::unique_ptr<Scorer> make_lexicon_scorer(const std::string& file, double factor) {
  return std::make_unique<LexiconScorer>(file, factor);
}

}  // namespace collimate::rlhf
