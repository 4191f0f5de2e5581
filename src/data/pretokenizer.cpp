#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/pretokenizer.hpp"

#include <pcre2.h>

#include "collimate/base/error.hpp"
#include "data/bpe_alphabet.hpp"

namespace collimate {
namespace {

std::string message_of(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

// PCRE2's \s also takes U+180E, which Unicode no longer counts as white space; the other libraries follow Unicode.
std::string with_unicode_spaces(const std::string& pattern) {
  std::string out;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '\\' || i + 1 == pattern.size()) {
      out += pattern[i];
      continue;
    }
    const char escaped = pattern[++i];
    if (escaped == 's') out += "\\p{White_Space}";
    else if (escaped == 'S') out += "\\P{White_Space}";
    else (out += '\\') += escaped;
  }
  return out;
}

}  // namespace

const char* gpt2_expression() { return R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"; }

/// A compiled expression that cuts valid UTF-8.
class Pretokenizer::Expression {
 public:
  Expression(const std::string& pattern, const std::string& where) {
    int code = 0;
    PCRE2_SIZE offset = 0;
    const std::string unicode = with_unicode_spaces(pattern);
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(unicode.data()), unicode.size(), PCRE2_UTF | PCRE2_UCP, &code, &offset, nullptr);
    require(code_, "{}: the pre-tokenizer expression '{}' does not compile: {}", where, pattern, message_of(code));
    pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE);  // where the system forbids it, matching is interpreted: slower, same result
  }
  ~Expression() { pcre2_code_free(code_); }
  Expression(const Expression&) = delete;
  Expression& operator=(const Expression&) = delete;

  /// `text` is valid UTF-8.
  void cut(std::string_view text, const Sink& piece) const {
    const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> match(pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
    ensure(match != nullptr, "no memory for a match of {} bytes of text", text.size());
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match.get());
    std::size_t done = 0;
    while (done < text.size()) {
      const int found = pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), done,
                                    PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, match.get(), nullptr);
      if (found == PCRE2_ERROR_NOMATCH) break;
      require(found >= 0,
              "the tokenizer's expression for words takes too many steps or too much memory on a text of {} bytes; shorten the text",
              text.size());
      if (range[0] > done) piece(text.substr(done, range[0] - done));
      piece(text.substr(range[0], range[1] - range[0]));
      done = range[1];
    }
    if (done < text.size()) piece(text.substr(done));
  }

 private:
  pcre2_code* code_ = nullptr;
};

Pretokenizer::Pretokenizer(PretokenizerRule rule, const std::string& where) : rule_(std::move(rule)) {
  for (const std::string& split : rule_.splits) expressions_.push_back(std::make_unique<Expression>(split, where));
  if (rule_.gpt2_words) expressions_.push_back(std::make_unique<Expression>(gpt2_expression(), where));
}

Pretokenizer::~Pretokenizer() = default;

void Pretokenizer::split(std::string_view text, const Sink& piece) const {
  std::size_t begin = 0, at = 0;
  const auto hand_over = [&] {
    if (at > begin) split_from(0, text.substr(begin, at - begin), piece);
    begin = at;
  };
  while (at < text.size()) {
    const std::size_t length = utf8_length(text.substr(at));
    if (length > 0) {
      at += length;
      continue;
    }
    hand_over();
    while (at < text.size() && utf8_length(text.substr(at)) == 0) ++at;
    piece(text.substr(begin, at - begin));
    begin = at;
  }
  hand_over();
}

void Pretokenizer::split_from(std::size_t stage, std::string_view text, const Sink& piece) const {
  if (stage < rule_.splits.size()) {
    expressions_[stage]->cut(text, [&](std::string_view part) { split_from(stage + 1, part, piece); });
    return;
  }
  std::string prefixed;
  if (rule_.prefix_space && text.front() != ' ') text = prefixed.append(" ").append(text);
  if (rule_.gpt2_words) expressions_.back()->cut(text, piece);
  else piece(text);
}

}  // namespace collimate
