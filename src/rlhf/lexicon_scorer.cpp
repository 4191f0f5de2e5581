#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_map>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/rlhf/scorer.hpp"
#include "rlhf/words.hpp"

namespace collimate::rlhf {
namespace {

std::vector<std::string_view> parts_of(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (std::size_t begin = 0;;) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    if (end == text.size()) return parts;
    begin = end + 1;
  }
}

class LexiconScorer final : public Scorer {
 public:
  LexiconScorer(const std::string& file, const LexiconColumns& columns, double factor) : file_(file), columns_(columns), factor_(factor) {
    require(std::isfinite(factor) && factor != 0, "the lexicon's factor is {}; give 1, -1 or another number", factor);
    require(columns.value == 0 || columns.word != columns.value, "column {} of the lexicon '{}' cannot hold both words and values: name two",
            columns.word, file);
    const std::string text = read_file(file);
    std::string_view rest = text;
    if (rest.starts_with("\xEF\xBB\xBF")) rest.remove_prefix(3);  // the byte order mark of some editors
    int number = 0;
    for (std::string_view line : parts_of(rest, '\n')) {
      ++number;
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (!line.empty()) add(line, number);
    }
    require(!values_.empty() || !signs_.empty(), "the lexicon '{}' has no entries; give a file of lines word<TAB>value", file);
  }

  std::vector<double> score(std::span<const ScoredSample> samples) override {
    std::vector<double> scores;
    for (const ScoredSample& sample : samples) scores.push_back(factor_ * value_of(sample.response));
    return scores;
  }

  std::string remark() const override {
    std::string text;
    if (contradicted_ > 0)
      text += fmt::format("lines that give a word another value than an earlier line: {}, first line {}; the word in small letters counts, of two such the last. ",
                          contradicted_, first_contradicted_);
    if (lost_ > 0) text += fmt::format("entries that can never be found and are left out: {}, first '{}'. ", lost_, first_lost_);
    if (!text.empty()) text = fmt::format("the lexicon '{}': {}", file_, text.substr(0, text.size() - 1));
    return text;
  }

  std::string why_equal(std::span<const ScoredSample> samples) const override {
    const bool found = std::any_of(samples.begin(), samples.end(), [&](const ScoredSample& s) { return value_of(s.response) != 0; });
    return found ? "" : fmt::format("no response holds words of the lexicon '{}' whose values do not cancel out; is it of the model's language?", file_);
  }

 private:
  struct Entry {
    double value = 0;
    bool small = false;  ///< spelled in small letters
  };
  using Entries = std::unordered_map<std::string, Entry>;

  // The word and the value of a line.
  std::pair<std::string_view, std::string_view> columns_of(std::string_view line, int number) const {
    const std::vector<std::string_view> parts = parts_of(line, '\t');
    const auto count = static_cast<std::int64_t>(parts.size());
    require(count > 1, "line {} of the lexicon '{}' has no tab: '{}'; write word<TAB>value", number, file_, line);
    require(columns_.value > 0 || count == 2,
            "line {} of the lexicon '{}' has {} columns: say which hold words and values, for VADER's form ppo.scorer_word_column = 1 and "
            "ppo.scorer_value_column = 2",
            number, file_, count);
    const std::int64_t value = columns_.value > 0 ? columns_.value : 2;
    require(std::max(columns_.word, value) <= count, "line {} of the lexicon '{}' has {} columns, and column {} is asked for", number, file_, count,
            std::max(columns_.word, value));
    return {parts[columns_.word - 1], parts[value - 1]};
  }

  void add(std::string_view line, int number) {
    const auto [spelling, digits] = columns_of(line, number);
    Entry entry;
    const char* end = digits.data() + digits.size();
    const auto [stop, problem] = std::from_chars(digits.data(), end, entry.value);
    require(problem == std::errc() && stop == end && std::isfinite(entry.value), "line {} of the lexicon '{}': '{}' is not a number", number, file_, digits);
    const std::string small = folded(spelling);
    entry.small = small == spelling;
    const bool sign = !only_words(spelling);
    if (sign && !can_be_sign(spelling)) {
      require(columns_.value > 0, "line {} of the lexicon '{}': the words of '{}' may be joined by blanks, a hyphen or an apostrophe only", number, file_,
              spelling);
      if (lost_++ == 0) first_lost_ = spelling;
      return;
    }
    std::string key = small;
    if (!sign) {
      const std::vector<Word> words = words_of(spelling);
      key.clear();
      for (const Word& word : words) append(key, word);
      longest_ = std::max(longest_, words.size());
    }
    keep(sign ? signs_ : values_, key, entry, number);
  }

  // A sign such as ":-)" is found where it stands between blanks.
  static bool can_be_sign(std::string_view spelling) { return !spelling.empty() && spelling.find_first_of(" \r") == std::string_view::npos; }

  void keep(Entries& entries, const std::string& key, const Entry& entry, int number) {
    const auto [place, fresh] = entries.emplace(key, entry);
    Entry& kept = place->second;
    if (fresh || kept.value == entry.value) {
      kept.small |= entry.small;
      return;
    }
    require(columns_.value > 0, "line {} of the lexicon '{}' gives '{}' the value {} where an earlier line gave {}", number, file_, key, entry.value,
            kept.value);
    if (contradicted_++ == 0) first_contradicted_ = number;
    if (entry.small || !kept.small) kept = entry;
  }

  static void append(std::string& key, const Word& word) {
    if (!key.empty()) key += word.joint;
    key += word.text;
  }

  // Bytes of the sign that a token is, with what ends a sentence behind it or not.
  std::size_t sign_of(std::string_view token) const {
    for (;;) {
      if (signs_.contains(folded(token))) return token.size();
      if (token.empty() || std::string_view(".,!?;:").find(token.back()) == std::string_view::npos) return 0;
      token.remove_suffix(1);
    }
  }

  double value_of(std::string_view text) const {
    FindSign find;
    if (!signs_.empty()) find = [this](std::string_view token) { return sign_of(token); };
    const std::vector<Word> words = words_of(text, find);
    double sum = 0;
    for (std::size_t i = 0; i < words.size();) {
      if (words[i].sign) {
        sum += signs_.at(words[i++].text).value;
        continue;
      }
      std::string key;
      std::size_t used = 1;
      double value = 0;
      for (std::size_t n = 0; n < longest_ && i + n < words.size() && (n == 0 || words[i + n].joint); ++n) {
        append(key, words[i + n]);
        const auto found = values_.find(key);
        if (found == values_.end()) continue;
        value = found->second.value;
        used = n + 1;
      }
      sum += value;
      i += used;
    }
    return sum;
  }

  std::string file_;
  LexiconColumns columns_;
  double factor_;
  Entries values_, signs_;
  std::size_t longest_ = 0;  ///< words of the longest entry
  std::int64_t contradicted_ = 0, lost_ = 0;
  int first_contradicted_ = 0;
  std::string first_lost_;
};

}  // namespace

std::unique_ptr<Scorer> make_lexicon_scorer(const std::string& file, double factor, const LexiconColumns& columns) {
  return std::make_unique<LexiconScorer>(file, columns, factor);
}

}  // namespace collimate::rlhf
