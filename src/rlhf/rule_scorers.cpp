#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "collimate/base/error.hpp"
#include "collimate/rlhf/scorer.hpp"

namespace collimate::rlhf {
namespace {

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

class ExpressionScorer final : public Scorer {
 public:
  ExpressionScorer(const std::string& expression, double value, ExpressionCount count) : value_(value), count_(count) {
    require(std::isfinite(value), "the value of the expression '{}' is {}; give a finite number", expression, value);
    int code = 0;
    PCRE2_SIZE place = 0;
    expression_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                                    PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF, &code, &place, nullptr));
    require(expression_ != nullptr, "the expression '{}' is wrong at character {}: {}", expression, place, pcre2_message(code));
    pcre2_jit_compile(expression_.get(), PCRE2_JIT_COMPLETE);  // where it is refused, the interpreter gives the same matches
    match_.reset(pcre2_match_data_create_from_pattern(expression_.get(), nullptr));
  }

  std::vector<double> score(std::span<const ScoredSample> samples) override {
    std::vector<double> scores;
    for (const ScoredSample& sample : samples) scores.push_back(value_ * static_cast<double>(matches(sample)));
    return scores;
  }

  std::string why_equal(std::span<const ScoredSample> samples) const override {
    const bool some = std::any_of(samples.begin(), samples.end(), [&](const ScoredSample& s) { return matches(s) > 0; });
    return some ? "the expression matches equally often in every response" : "the expression matches in no response";
  }

 private:
  std::int64_t matches(const ScoredSample& sample) const {
    const bool every = count_ == ExpressionCount::every;
    std::int64_t count = 0;
    for (PCRE2_SIZE from = 0;;) {
      const int result = pcre2_match(expression_.get(), reinterpret_cast<PCRE2_SPTR>(sample.response.data()), sample.response.size(), from,
                                     every ? PCRE2_NOTEMPTY : 0, match_.get(), nullptr);
      if (result == PCRE2_ERROR_NOMATCH) return count;
      require(result >= 0, "the expression could not be tried on sample {}: {}; make it simpler", sample.index, pcre2_message(result));
      ++count;
      if (!every) return count;
      from = std::max(from, pcre2_get_ovector_pointer(match_.get())[1]);
    }
  }

  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  };
  double value_;
  ExpressionCount count_;
  std::unique_ptr<pcre2_code, Free> expression_;
  std::unique_ptr<pcre2_match_data, Free> match_;
};

class LengthScorer final : public Scorer {
 public:
  LengthScorer(std::int64_t target, LengthUnit unit) : target_(target), unit_(unit) {
    require(target > 0, "the target length is {}; give at least 1", target);
  }

  std::vector<double> score(std::span<const ScoredSample> samples) override {
    std::vector<double> scores;
    for (const ScoredSample& sample : samples) {
      const std::int64_t length = unit_ == LengthUnit::tokens ? sample.tokens : characters(sample.response);
      scores.push_back(-static_cast<double>(std::abs(length - target_)) / static_cast<double>(target_));
    }
    return scores;
  }

  std::string why_equal(std::span<const ScoredSample> samples) const override {
    const bool ended = std::any_of(samples.begin(), samples.end(), [](const ScoredSample& s) { return s.finish == "eos"; });
    return ended ? "all responses are equally far from the target length" : "no response ends before ppo.max_new, so all are equally long";
  }

 private:
  static std::int64_t characters(std::string_view text) {
    return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
  }

  std::int64_t target_;
  LengthUnit unit_;
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The bytes of one of these characters at text[i], or 0.
std::size_t length_of(std::initializer_list<std::string_view> characters, std::string_view text, std::size_t i) {
  for (const std::string_view c : characters)
    if (text.substr(i).starts_with(c)) return c.size();
  return 0;
}

std::size_t minus_at(std::string_view text, std::size_t i) { return length_of({"-", "\u2212"}, text, i); }
std::size_t plus_or_currency_at(std::string_view text, std::size_t i) { return length_of({"$", "+", "\u20ac", "\u00a3", "\u00a5"}, text, i); }
std::size_t blank_at(std::string_view text, std::size_t i) { return length_of({" ", "\t", "\u00a0", "\u2009", "\u202f"}, text, i); }

/// Moves the point of whole.decimals to the right (to the left: places < 0).
void shift_point(std::string& whole, std::string& decimals, int places) {
  for (; places > 0; --places) {
    whole += decimals.empty() ? '0' : decimals.front();
    decimals.erase(0, 1);
  }
  for (; places < 0; ++places) {
    decimals.insert(decimals.begin(), whole.empty() ? '0' : whole.back());
    if (!whole.empty()) whole.pop_back();
  }
}

/// Reads e[+-]digits behind a number, as in 1.5e-05, and moves past it. 0 where there is none, or it is out of every range.
int read_exponent(std::string_view text, std::size_t& at) {
  constexpr int most = 400;
  std::size_t i = at + 1;
  if (at >= text.size() || (text[at] != 'e' && text[at] != 'E')) return 0;
  const bool negative = i < text.size() && text[i] == '-';
  if (i < text.size() && (text[i] == '-' || text[i] == '+')) ++i;
  int value = 0;
  const std::size_t first = i;
  for (; i < text.size() && is_digit(text[i]) && value <= most; ++i) value = 10 * value + (text[i] - '0');
  const bool goes_on = i < text.size() && std::isalnum(static_cast<unsigned char>(text[i]));
  if (i == first || value > most || goes_on) return 0;
  at = i;
  return negative ? -value : value;
}

/// Reads [-][$]digits[,digits][.digits][e[-]digits] (or [$][-]...) at `at` and moves past it; nothing if there is none.
std::optional<std::string> read_number(std::string_view text, std::size_t& at) {
  std::size_t i = at;
  bool negative = false;
  while (const std::size_t length = minus_at(text, i) + plus_or_currency_at(text, i)) {
    negative |= minus_at(text, i) > 0;
    i += length;
  }
  const auto digit_follows = [&](std::size_t k) { return k + 1 < text.size() && is_digit(text[k + 1]); };
  std::string whole, decimals;
  for (; i < text.size() && (is_digit(text[i]) || (text[i] == ',' && !whole.empty() && digit_follows(i))); ++i)
    if (text[i] != ',') whole += text[i];
  if (i < text.size() && text[i] == '.' && digit_follows(i))
    for (++i; i < text.size() && is_digit(text[i]); ++i) decimals += text[i];
  if (whole.empty() && decimals.empty()) return std::nullopt;
  shift_point(whole, decimals, read_exponent(text, i));
  at = i;
  whole.erase(0, std::min(whole.find_first_not_of('0'), whole.size()));
  decimals.erase(decimals.find_last_not_of('0') + 1);
  const bool zero = whole.empty() && decimals.empty();
  return fmt::format("{}{}{}{}", negative && !zero ? "-" : "", whole.empty() ? "0" : whole, decimals.empty() ? "" : ".", decimals);
}

/// A number, or a fraction of two without blanks ("1/2"), which equals the same fraction alone.
std::optional<std::string> read_fraction(std::string_view text, std::size_t& at) {
  auto number = read_number(text, at);
  if (!number || at + 1 >= text.size() || text[at] != '/' || !is_digit(text[at + 1])) return number;
  std::size_t behind = at + 1;
  const auto below = read_number(text, behind);
  at = behind;
  return *number + "/" + *below;
}

constexpr std::string_view mark = "####";

class FinalNumberScorer final : public Scorer {
 public:
  explicit FinalNumberScorer(AnswerForm form) : form_(form) {}

  std::vector<double> score(std::span<const ScoredSample> samples) override {
    std::vector<double> scores;
    for (const ScoredSample& sample : samples) {
      const auto wanted = reference_number(sample.answer);
      require(wanted.has_value(), "the reference answer of sample {} has no number: '{}'; this scorer needs one in every sample",
              sample.index, sample.answer);
      scores.push_back(number_of(sample.response) == wanted ? 1 : 0);
    }
    return scores;
  }

  std::string why_equal(std::span<const ScoredSample> samples) const override {
    const auto some = [&](auto has) { return std::any_of(samples.begin(), samples.end(), has); };
    if (some([&](const ScoredSample& s) { return number_of(s.response) == reference_number(s.answer); })) return "all answers are right";
    if (some([&](const ScoredSample& s) { return number_of(s.response).has_value(); })) return "no answer is right";
    if (form_ == AnswerForm::last_number) return "no response holds a number";
    if (some([](const ScoredSample& s) { return last_number(s.response).has_value(); }))
      return "no response has a number behind a mark ####; with ppo.exact_answer = last_number the last number of a response counts";
    return "no response holds a number, and ppo.exact_answer = marked asks for one behind a mark ####: teach the form first, in a stage sft";
  }

 private:
  std::optional<std::string> number_of(std::string_view response) const {
    const auto marked = marked_number(response);
    return marked || form_ == AnswerForm::marked ? marked : last_number(response);
  }

  AnswerForm form_;
};

}  // namespace

std::optional<std::string> marked_number(std::string_view text) {
  std::optional<std::string> last;
  for (std::size_t at = text.find(mark); at != std::string_view::npos; at = text.find(mark, at)) {
    at = std::min(text.find_first_not_of('#', at), text.size());
    std::size_t number_at = at;
    while (const std::size_t length = blank_at(text, number_at) + length_of({"#"}, text, number_at)) number_at += length;
    if (auto number = read_fraction(text, number_at)) last = std::move(number);
  }
  return last;
}

std::optional<std::string> last_number(std::string_view text) {
  std::optional<std::string> last;
  for (std::size_t i = 0; i < text.size();) {
    // A minus right behind a letter or a digit is a hyphen or a subtraction: "3-4" ends in 4.
    const bool attached = minus_at(text, i) > 0 && i > 0 && std::isalnum(static_cast<unsigned char>(text[i - 1]));
    if (auto number = attached ? std::nullopt : read_fraction(text, i))
      last = std::move(number);
    else
      ++i;
  }
  return last;
}

std::optional<std::string> reference_number(std::string_view answer) {
  return answer.find(mark) == std::string_view::npos ? last_number(answer) : marked_number(answer);
}

std::unique_ptr<Scorer> make_expression_scorer(const std::string& expression, double value, ExpressionCount count) {
  return std::make_unique<ExpressionScorer>(expression, value, count);
}
std::unique_ptr<Scorer> make_length_scorer(std::int64_t target, LengthUnit unit) { return std::make_unique<LengthScorer>(target, unit); }
std::unique_ptr<Scorer> make_final_number_scorer(AnswerForm form) { return std::make_unique<FinalNumberScorer>(form); }

}  // namespace collimate::rlhf
