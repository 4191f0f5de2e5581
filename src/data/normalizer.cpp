#include "data/normalizer.hpp"

#include <algorithm>

#include "data/bpe_alphabet.hpp"
#include "data/json_step.hpp"
#include "data/split.hpp"
#include "data/unicode.hpp"

namespace collimate {
namespace {

class Form : public Normalizer {
 public:
  explicit Form(NormalForm form) : form_(form) {}
  void apply(std::string& text, Edge) const override { normalize(text, form_); }

 private:
  NormalForm form_;
};

/// Replaces every code point by what `map(out, code)` appends, which may be nothing.
class ByCode : public Normalizer {
 public:
  using Map = void (*)(std::string& out, char32_t code);
  explicit ByCode(Map map) : map_(map) {}
  void apply(std::string& text, Edge) const override {
    std::string out;
    for_each_code(text, [&](char32_t code) { map_(out, code); }, [&](std::string_view broken) { out += broken; });
    text = std::move(out);
  }

 private:
  Map map_;
};

void drop_mark(std::string& out, char32_t code) {
  if (!is_mark(code)) append_code(out, code);
}
void drop_nonspacing_mark(std::string& out, char32_t code) {
  if (!is_nonspacing_mark(code)) append_code(out, code);
}

/// SentencePiece's nmt_nfkc without its normal form: control characters go, odd blanks become blanks.
void clean_as_nmt(std::string& out, char32_t code) {
  const auto in = [&](char32_t first, char32_t last) { return code >= first && code <= last; };
  if (in(0x1, 0x8) || code == 0xB || in(0xE, 0x1F) || code == 0x7F || code == 0x8F || code == 0x9F) return;
  const bool blank = code == 0x9 || code == 0xA || code == 0xC || code == 0xD || code == 0x1680 || in(0x200B, 0x200F) || code == 0x2028 ||
                     code == 0x2029 || code == 0x2581 || code == 0xFEFF || code == 0xFFFD;
  append_code(out, blank ? ' ' : code);
}

void clean_as_bert(std::string& out, char32_t code) {
  const bool tab_or_break = code == '\t' || code == '\n' || code == '\r';
  if (code == 0 || code == 0xFFFD || (!tab_or_break && is_other(code))) return;
  append_code(out, is_white_space(code) ? ' ' : code);
}

void space_ideograph(std::string& out, char32_t code) {
  constexpr std::pair<char32_t, char32_t> blocks[] = {{0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F},
                                                      {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
  const bool ideograph = std::ranges::any_of(blocks, [&](const auto& block) { return code >= block.first && code <= block.second; });
  if (ideograph) out += ' ';
  append_code(out, code);
  if (ideograph) out += ' ';
}

void spell_bytes(std::string& out, char32_t code) {
  std::string bytes;
  append_code(bytes, code);
  out += bytes_to_alphabet(bytes);
}

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void apply(std::string& text, Edge edge) const override {
    std::size_t begin = 0, end = 0, at = 0;  // of what is no blank
    bool any = false;
    const auto solid = [&](std::size_t length) {
      if (!any) begin = at;
      any = true;
      end = at + length;
    };
    for_each_code(
        text,
        [&](char32_t code) {
          std::string own;
          append_code(own, code);
          if (!is_white_space(code)) solid(own.size());
          at += own.size();
        },
        [&](std::string_view broken) {
          solid(broken.size());
          at += broken.size();
        });
    const bool left = left_ && edge != Edge::behind_text;
    if (!any) begin = left ? text.size() : 0, end = right_ || left ? begin : text.size();
    if (right_) text.erase(end);
    if (left) text.erase(0, std::min(begin, text.size()));
  }
  bool looks_at_ends() const override { return true; }

 private:
  bool left_, right_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void apply(std::string& text, Edge edge) const override {
    if (!text.empty() && edge != Edge::behind_text) text.insert(0, prefix_);
  }
  bool prefixes() const override { return true; }
  bool looks_at_ends() const override { return true; }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  explicit Replace(Replacement replacement) : replacement_(std::move(replacement)) {}
  void apply(std::string& text, Edge) const override { text = replacement_.apply(std::move(text)); }

 private:
  Replacement replacement_;
};

using Made = std::unique_ptr<Normalizer>;
using Steps = std::vector<Made>;

template <NormalForm form>
void read_form(JsonStep&, Steps& steps) {
  steps.push_back(std::make_unique<Form>(form));
}
template <ByCode::Map map>
void read_by_code(JsonStep&, Steps& steps) {
  steps.push_back(std::make_unique<ByCode>(map));
}
void read_strip(JsonStep& step, Steps& steps) {
  const bool left = step.get("strip_left", true), right = step.get("strip_right", true);
  steps.push_back(std::make_unique<Strip>(left, right));
}
void read_prepend(JsonStep& step, Steps& steps) { steps.push_back(std::make_unique<Prepend>(step.at("prepend").get<std::string>())); }
void read_replace(JsonStep& step, Steps& steps) {
  steps.push_back(std::make_unique<Replace>(Replacement(step.at("pattern"), step.at("content"), step.place())));
}
void read_precompiled(JsonStep& step, Steps& steps) {
  const json map = step.at("precompiled_charsmap");
  if (!map.is_null() && map != "") steps.push_back(make_precompiled_normalizer(map.get<std::string>(), step.place()));
}
void read_bert(JsonStep& step, Steps& steps) {
  const bool lower = step.get("lowercase", true);
  if (step.get("clean_text", true)) steps.push_back(std::make_unique<ByCode>(clean_as_bert));
  if (step.get("handle_chinese_chars", true)) steps.push_back(std::make_unique<ByCode>(space_ideograph));
  if (step.get("strip_accents", lower)) {
    steps.push_back(std::make_unique<Form>(NormalForm::nfd));
    steps.push_back(std::make_unique<ByCode>(drop_nonspacing_mark));
  }
  if (lower) steps.push_back(std::make_unique<ByCode>(append_lower));
}

constexpr StepRow<void (*)(JsonStep&, Steps&)> rows[] = {
    {"NFC", read_form<NormalForm::nfc>},   {"NFD", read_form<NormalForm::nfd>},     {"NFKC", read_form<NormalForm::nfkc>},
    {"NFKD", read_form<NormalForm::nfkd>}, {"Lowercase", read_by_code<append_lower>}, {"StripAccents", read_by_code<drop_mark>},
    {"Nmt", read_by_code<clean_as_nmt>},   {"ByteLevel", read_by_code<spell_bytes>},  {"Strip", read_strip},
    {"Prepend", read_prepend},             {"Replace", read_replace},                 {"BertNormalizer", read_bert},
    {"Precompiled", read_precompiled},
};

}  // namespace

bool NormalizerChain::prefixes() const {
  return std::ranges::any_of(steps_, [](const auto& step) { return step->prefixes(); });
}
bool NormalizerChain::looks_at_ends() const {
  return std::ranges::any_of(steps_, [](const auto& step) { return step->looks_at_ends(); });
}

NormalizerChain read_normalizer(const json& whole, const std::string& name) {
  Steps steps;
  for (const json& value : steps_of(whole, "normalizers")) {
    JsonStep step(value, "normalizer", name);
    row_of(step, "normalizer", rows).read(step, steps);
    step.end();
  }
  return NormalizerChain(std::move(steps));
}

}  // namespace collimate
