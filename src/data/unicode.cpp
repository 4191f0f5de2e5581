#include "data/unicode.hpp"

#include <utf8proc.h>

#include <cstdlib>

#include "collimate/base/error.hpp"
#include "data/bpe_alphabet.hpp"

namespace collimate {
namespace {

utf8proc_category_t category_of(char32_t code) { return utf8proc_category(static_cast<utf8proc_int32_t>(code)); }

/// Whether the form leaves such a text alone: NFC below U+0300, whose lead byte is 0xCC, the others below U+0080.
bool unchanged(std::string_view text, NormalForm form) {
  const unsigned first = form == NormalForm::nfc ? 0xCC : 0x80;
  for (const char c : text)
    if (static_cast<unsigned char>(c) >= first) return false;
  return true;
}

std::string normalized(std::string_view text, NormalForm form) {
  const bool compatible = form == NormalForm::nfkc || form == NormalForm::nfkd, composed = form == NormalForm::nfc || form == NormalForm::nfkc;
  const int options = UTF8PROC_STABLE | (compatible ? UTF8PROC_COMPAT : 0) | (composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
  utf8proc_uint8_t* out = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()), &out,
                                   static_cast<utf8proc_option_t>(options));
  ensure(length >= 0, "utf8proc cannot normalize a text of {} bytes: {}", text.size(), utf8proc_errmsg(length));
  std::string result(reinterpret_cast<const char*>(out), static_cast<std::size_t>(length));
  std::free(out);
  return result;
}

}  // namespace

namespace unicode {

std::size_t valid_length(std::string_view text) {
  std::size_t at = 0;
  while (const std::size_t length = utf8_length(text.substr(at))) at += length;
  return at;
}

std::size_t invalid_length(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size() && utf8_length(text.substr(at)) == 0) ++at;
  return at;
}

bool breaks_between(char32_t before, char32_t after, std::int32_t& state) {
  return utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(before), static_cast<utf8proc_int32_t>(after), &state);
}

}  // namespace unicode

void normalize(std::string& text, NormalForm form) {
  if (unchanged(text, form)) return;
  std::string out;
  for_each_run(text, [&](std::string_view run, bool valid) {
    if (valid && !unchanged(run, form)) out += normalized(run, form);
    else out += run;
  });
  text = std::move(out);
}

bool is_white_space(char32_t code) {
  return (code >= 9 && code <= 13) || code == ' ' || code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
         code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_numeric(char32_t code) {
  const auto category = category_of(code);
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO;
}

bool is_punctuation(char32_t code) {
  if (code < 0x80) return code > ' ' && code < 0x7F && !(code >= '0' && code <= '9') && !((code | 0x20) >= 'a' && (code | 0x20) <= 'z');
  const auto category = category_of(code);
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool is_mark(char32_t code) {
  const auto category = category_of(code);
  return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

bool is_nonspacing_mark(char32_t code) { return category_of(code) == UTF8PROC_CATEGORY_MN; }

bool is_other(char32_t code) {
  const auto category = category_of(code);
  return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_CO;
}

void append_lower(std::string& out, char32_t code) {
  if (code == 0x130) out += "i\u0307";  // the only one whose lower case is two code points
  else append_code(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
}

char32_t take_code(std::string_view& text) {
  const auto first = static_cast<unsigned char>(text[0]);
  const std::size_t length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  char32_t code = length == 1 ? first : first & (0xFFu >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) code = code << 6 | (static_cast<unsigned char>(text[i]) & 0x3Fu);
  text.remove_prefix(length);
  return code;
}

void append_code(std::string& out, char32_t code) {
  if (code < 0x800) return append_utf8(out, code);
  if (code >= 0x10000) {
    out += static_cast<char>(0xF0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3F));
  } else {
    out += static_cast<char>(0xE0 | code >> 12);
  }
  out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
  out += static_cast<char>(0x80 | (code & 0x3F));
}

}  // namespace collimate
