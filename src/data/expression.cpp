#include "data/expression.hpp"

#include <oniguruma.h>

#include <cctype>

#include "collimate/base/error.hpp"
#include "data/bpe_alphabet.hpp"

namespace collimate {
namespace {

const OnigUChar* bytes_of(std::string_view text) { return reinterpret_cast<const OnigUChar*>(text.data()); }

std::string message_of(int code, OnigErrorInfo* information = nullptr) {
  OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int length = information ? onig_error_code_to_str(text, code, information) : onig_error_code_to_str(text, code);
  return {reinterpret_cast<const char*>(text), static_cast<std::size_t>(length)};
}

struct FreeRegion {
  void operator()(OnigRegion* region) const { onig_region_free(region, 1); }
};

}  // namespace

void Expression::Free::operator()(void* compiled) const { onig_free(static_cast<OnigRegex>(compiled)); }

Expression::Expression(const std::string& pattern, const std::string& where) {
  OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
  onig_initialize(encodings, 1);
  OnigRegex compiled = nullptr;
  OnigErrorInfo information{};
  const int code = onig_new(&compiled, bytes_of(pattern), bytes_of(pattern) + pattern.size(), ONIG_OPTION_NONE, ONIG_ENCODING_UTF8,
                            ONIG_SYNTAX_RUBY, &information);
  require(code == ONIG_NORMAL, "{}: the expression '{}' does not compile: {}", where, pattern, message_of(code, &information));
  compiled_.reset(compiled);
}

std::string Expression::escaped(std::string_view literal) {
  std::string out;
  for (const char c : literal) {
    if (static_cast<unsigned char>(c) < 0x80 && std::ispunct(static_cast<unsigned char>(c))) out += '\\';
    out += c;
  }
  return out;
}

void Expression::for_each_match(std::string_view text, const Match& match) const {
  const std::unique_ptr<OnigRegion, FreeRegion> region(onig_region_new());
  ensure(region != nullptr, "no memory for a match in {} bytes of text", text.size());
  const OnigUChar *begin = bytes_of(text), *end = begin + text.size();
  std::size_t from = 0, last = std::string_view::npos;
  while (from <= text.size()) {
    const int found = onig_search(static_cast<OnigRegex>(compiled_.get()), begin, end, begin + from, end, region.get(), ONIG_OPTION_NONE);
    if (found == ONIG_MISMATCH) return;
    require(found >= 0, "the tokenizer's expression for words takes too many steps or too much memory on a text of {} bytes ({}); shorten the text",
            text.size(), message_of(found));
    const auto first = static_cast<std::size_t>(region->beg[0]), behind = static_cast<std::size_t>(region->end[0]);
    if (first == behind && behind == last) {
      from += from < text.size() ? utf8_length(text.substr(from)) : 1;
      continue;
    }
    from = last = behind;
    match(first, behind);
  }
}

}  // namespace collimate
