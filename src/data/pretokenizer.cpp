#include "data/pretokenizer.hpp"

#include <optional>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "data/bpe_alphabet.hpp"
#include "data/json_step.hpp"
#include "data/split.hpp"
#include "data/unicode.hpp"

namespace collimate {
namespace {

void hand_over(std::string_view text, Edge edge, const std::vector<Segment>& words, const Pretokenizer::Sink& word) {
  for (const Segment& part : words) word(text.substr(part.begin, part.end - part.begin), part.begin == 0 ? edge : Edge::inside);
}

/// ByteLevel: perhaps a blank before the text, perhaps GPT-2's expression; then every byte as a character of GPT-2's alphabet.
class ByteLevel : public Pretokenizer {
 public:
  explicit ByteLevel(JsonStep& step) : prefix_blank_(step.get("add_prefix_space", false)) {
    step.passed_over("trim_offsets");
    if (step.get("use_regex", true)) words_.emplace(gpt2_expression(), step.place());
  }
  void cut(std::string_view text, Edge edge, const Sink& word) const override {
    std::string prefixed;
    if (prefix_blank_ && edge != Edge::behind_text && text.front() != ' ') text = prefixed.append(" ").append(text);
    if (!words_) return word(bytes_to_alphabet(text), edge);
    std::size_t done = 0;
    const auto spell = [&](std::size_t begin, std::size_t end) {
      if (end > begin) word(bytes_to_alphabet(text.substr(begin, end - begin)), begin == 0 ? edge : Edge::inside);
    };
    words_->for_each_match(text, [&](std::size_t begin, std::size_t end) {
      spell(done, begin);
      spell(begin, end);
      done = end;
    });
    spell(done, text.size());
  }
  bool spells_bytes() const override { return true; }

 private:
  bool prefix_blank_;
  std::optional<Expression> words_;
};

/// Split, Whitespace: an expression.
class ExpressionSplit : public Pretokenizer {
 public:
  ExpressionSplit(const std::string& pattern, SplitBehavior behavior, bool inverted, const std::string& place)
      : expression_(pattern, place), behavior_(behavior), inverted_(inverted) {}
  void cut(std::string_view text, Edge edge, const Sink& word) const override {
    hand_over(text, edge, words_of(segments_of(expression_, text, inverted_), behavior_), word);
  }

 private:
  Expression expression_;
  SplitBehavior behavior_;
  bool inverted_;
};

/// Punctuation, Digits, WhitespaceSplit: code points of a kind.
class CodeSplit : public Pretokenizer {
 public:
  CodeSplit(bool (*matches)(char32_t), SplitBehavior behavior) : matches_(matches), behavior_(behavior) {}
  void cut(std::string_view text, Edge edge, const Sink& word) const override {
    hand_over(text, edge, words_of(segments_of(text, matches_), behavior_), word);
  }

 private:
  bool (*matches_)(char32_t);
  SplitBehavior behavior_;
};

/// BertPreTokenizer: white space goes, punctuation stands alone.
class BertSplit : public Pretokenizer {
 public:
  void cut(std::string_view text, Edge edge, const Sink& word) const override {
    blanks_.cut(text, edge, [&](std::string_view part, Edge at) { punctuation_.cut(part, at, word); });
  }

 private:
  CodeSplit blanks_{is_white_space, SplitBehavior::removed}, punctuation_{is_punctuation, SplitBehavior::isolated};
};

/// FixedLength: words of so many code points.
class FixedLength : public Pretokenizer {
 public:
  FixedLength(std::size_t length, const std::string& place) : length_(length) { require(length > 0, "{}: the length is 0", place); }
  void cut(std::string_view text, Edge edge, const Sink& word) const override {
    for (std::string_view rest = text; !rest.empty();) {
      const std::string_view from = rest;
      for (std::size_t i = 0; i < length_ && !rest.empty(); ++i) take_code(rest);
      word(from.substr(0, from.size() - rest.size()), from.size() == text.size() ? edge : Edge::inside);
    }
  }

 private:
  std::size_t length_;
};

/// Metaspace: blanks become another character, one comes before the text, and perhaps it is cut before each of them.
class Metaspace : public Pretokenizer {
 public:
  explicit Metaspace(JsonStep& step) : blank_(step.get("replacement", std::string("\u2581"))), split_(step.get("split", true)) {
    step.passed_over("str_rep");
    const std::string scheme = step.get("add_prefix_space", true) ? step.get("prepend_scheme", std::string("always")) : "never";
    require(scheme == "always" || scheme == "first" || scheme == "never", "{}: the prepend_scheme '{}' is not known", step.place(), scheme);
    step.passed_over("prepend_scheme");
    prefix_ = scheme == "always" ? Prefix::always : scheme == "first" ? Prefix::first : Prefix::none;
  }
  void cut(std::string_view text, Edge edge, const Sink& word) const override {
    std::string out = replace_all(std::string(text), " ", blank_);
    const bool wanted = prefix_ == Prefix::always ? edge != Edge::behind_text : prefix_ == Prefix::first && edge == Edge::start;
    if (wanted && !out.starts_with(blank_)) out.insert(0, blank_);
    std::string_view rest = out;
    while (split_) {
      const std::size_t next = rest.find(blank_, rest.starts_with(blank_) ? blank_.size() : 0);
      if (next == std::string_view::npos) break;
      word(rest.substr(0, next), rest.size() == out.size() ? edge : Edge::inside);
      rest.remove_prefix(next);
    }
    word(rest, rest.size() == out.size() ? edge : Edge::inside);
  }
  Prefix prefix() const override { return prefix_; }
  bool takes_bytes() const override { return !split_; }

 private:
  std::string blank_;
  bool split_;
  Prefix prefix_ = Prefix::none;
};

using Made = std::unique_ptr<Pretokenizer>;

SplitBehavior behavior_in(JsonStep& step) { return split_behavior_named(step.get("behavior", std::string("Isolated")), step.place()); }

Made read_split(JsonStep& step) {
  const SplitBehavior behavior = split_behavior_named(step.at("behavior"), step.place());
  return std::make_unique<ExpressionSplit>(pattern_of(step.at("pattern"), step.place()), behavior, step.get("invert", false), step.place());
}
Made read_digits(JsonStep& step) {
  const bool alone = step.get("individual_digits", false);
  return std::make_unique<CodeSplit>(is_numeric, alone ? SplitBehavior::isolated : SplitBehavior::contiguous);
}
// The package uses another library for this one, whose \w is Unicode's (UTS #18, annex C): Oniguruma's has fewer characters.
Made read_whitespace(JsonStep& step) {
  const std::string word = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}";
  return std::make_unique<ExpressionSplit>("[" + word + "]+|[^" + word + "\\s]+", SplitBehavior::removed, true, step.place());
}
Made read_delimiter(JsonStep& step) {
  const std::string delimiter = step.at("delimiter");
  return std::make_unique<ExpressionSplit>(Expression::escaped(delimiter), SplitBehavior::removed, false, step.place());
}

constexpr StepRow<Made (*)(JsonStep&)> rows[] = {
    {"ByteLevel", [](JsonStep& step) -> Made { return std::make_unique<ByteLevel>(step); }},
    {"Split", read_split},
    {"Digits", read_digits},
    {"Metaspace", [](JsonStep& step) -> Made { return std::make_unique<Metaspace>(step); }},
    {"Whitespace", read_whitespace},
    {"WhitespaceSplit", [](JsonStep&) -> Made { return std::make_unique<CodeSplit>(is_white_space, SplitBehavior::removed); }},
    {"Punctuation", [](JsonStep& step) -> Made { return std::make_unique<CodeSplit>(is_punctuation, behavior_in(step)); }},
    {"BertPreTokenizer", [](JsonStep&) -> Made { return std::make_unique<BertSplit>(); }},
    {"CharDelimiterSplit", read_delimiter},
    {"FixedLength", [](JsonStep& step) -> Made { return std::make_unique<FixedLength>(step.get<std::size_t>("length", 5), step.place()); }},
};

}  // namespace

const char* gpt2_expression() { return R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"; }

PretokenizerChain::PretokenizerChain(std::vector<std::unique_ptr<Pretokenizer>> steps) : steps_(std::move(steps)) {
  for (const auto& step : steps_) {
    takes_bytes_ = takes_bytes_ && step->takes_bytes();
    spells_bytes_ = spells_bytes_ || step->spells_bytes();
  }
}

void PretokenizerChain::cut(std::string_view text, Edge edge, const Pretokenizer::Sink& word) const {
  if (text.empty()) return;
  if (takes_bytes_) return cut_from(0, text, edge, word);
  for_each_run(text, [&](std::string_view run, bool valid) {
    const Edge at = run.data() == text.data() ? edge : Edge::inside;
    if (valid) cut_from(0, run, at, word);
    else word(spells_bytes_ ? bytes_to_alphabet(run) : run, at);
  });
}

void PretokenizerChain::cut_from(std::size_t step, std::string_view text, Edge edge, const Pretokenizer::Sink& word) const {
  if (step == steps_.size()) return word(text, edge);
  if (step + 1 == steps_.size()) return steps_[step]->cut(text, edge, word);
  steps_[step]->cut(text, edge, [&](std::string_view part, Edge at) { cut_from(step + 1, part, at, word); });
}

Pretokenizer::Prefix PretokenizerChain::prefix() const {
  for (const auto& step : steps_)
    if (step->prefix() != Pretokenizer::Prefix::none) return step->prefix();
  return Pretokenizer::Prefix::none;
}

PretokenizerChain read_pretokenizer(const json& whole, const std::string& name) {
  std::vector<Made> steps;
  for (const json& value : steps_of(whole, "pretokenizers")) {
    JsonStep step(value, "pre-tokenizer", name);
    steps.push_back(row_of(step, "pre-tokenizer", rows).read(step));
    step.end();
  }
  return PretokenizerChain(std::move(steps));
}

void cut_words(const Expression& expression, std::string_view text, const std::function<void(std::string_view)>& word) {
  for_each_run(text, [&](std::string_view run, bool valid) {
    if (!valid) return word(run);
    std::size_t done = 0;
    expression.for_each_match(run, [&](std::size_t begin, std::size_t end) {
      if (begin > done) word(run.substr(done, begin - done));
      if (end > begin) word(run.substr(begin, end - begin));
      done = end;
    });
    if (done < run.size()) word(run.substr(done));
  });
}

}  // namespace collimate
