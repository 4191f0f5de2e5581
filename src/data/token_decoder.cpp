#include "data/token_decoder.hpp"

#include "collimate/base/text.hpp"
#include "data/bpe_alphabet.hpp"
#include "data/json_step.hpp"
#include "data/split.hpp"

namespace collimate {
namespace {

using Tokens = std::vector<TokenDecoder::Token>;

std::string all_of(const Tokens& tokens) {
  std::string text;
  for (const auto& token : tokens) text += token.text;
  return text;
}

/// GPT-2's alphabet to bytes.
class ByteLevel : public TokenDecoder {
 public:
  void apply(Tokens& tokens, bool) const override {
    for (Token& token : tokens)
      if (const auto bytes = token.added ? std::nullopt : alphabet_to_bytes(token.text)) token.text = *bytes;
  }
};

/// "<0x0A>" to its byte.
class ByteFallback : public TokenDecoder {
 public:
  void apply(Tokens& tokens, bool) const override {
    for (Token& token : tokens) {
      if (token.added || token.text.size() != 6 || !token.text.starts_with("<0x")) continue;
      constexpr std::string_view digits = "0123456789ABCDEF";
      const std::size_t high = digits.find(token.text[3]), low = digits.find(token.text[4]);
      if (high < 16 && low < 16 && token.text[5] == '>') token.text = std::string(1, static_cast<char>(high * 16 + low));
    }
  }
};

class Fuse : public TokenDecoder {
 public:
  void apply(Tokens& tokens, bool) const override { tokens = {{all_of(tokens)}}; }
};

/// Takes up to so many of a character off both ends of every token; those at the beginning only where encoding put them.
class Strip : public TokenDecoder {
 public:
  Strip(std::string content, std::size_t start, std::size_t stop) : content_(std::move(content)), start_(start), stop_(stop) {}
  void apply(Tokens& tokens, bool leading) const override {
    for (Token& token : tokens) {
      for (std::size_t i = 0; leading && i < start_ && token.text.starts_with(content_); ++i) token.text.erase(0, content_.size());
      for (std::size_t i = 0; i < stop_ && token.text.ends_with(content_); ++i) token.text.resize(token.text.size() - content_.size());
    }
  }

 private:
  std::string content_;
  std::size_t start_, stop_;
};

class Replace : public TokenDecoder {
 public:
  explicit Replace(Replacement replacement) : replacement_(std::move(replacement)) {}
  void apply(Tokens& tokens, bool) const override {
    for (Token& token : tokens) token.text = replacement_.apply(std::move(token.text));
  }

 private:
  Replacement replacement_;
};

/// The inverse of the pre-tokenizer of that name; of the blanks that the text begins with one was put there.
class Metaspace : public TokenDecoder {
 public:
  Metaspace(std::string blank, bool prefixed) : blank_(std::move(blank)), prefixed_(prefixed) {}
  void apply(Tokens& tokens, bool leading) const override {
    if (leading && prefixed_ && !tokens.empty() && tokens[0].text.starts_with(blank_)) tokens[0].text.erase(0, blank_.size());
    for (Token& token : tokens) token.text = replace_all(std::move(token.text), blank_, " ");
  }

 private:
  std::string blank_;
  bool prefixed_;
};

/// A blank before every word; pieces inside of words begin with the prefix.
class WordPiece : public TokenDecoder {
 public:
  WordPiece(std::string prefix, bool tidy) : prefix_(std::move(prefix)), tidy_(tidy) {}
  void apply(Tokens& tokens, bool leading) const override {
    constexpr std::pair<std::string_view, std::string_view> shorter[] = {{" .", "."},     {" ?", "?"},           {" !", "!"},   {" ,", ","},
                                                                         {" ' ", "'"},    {" n't", "n't"},       {" 'm", "'m"}, {" do not", " don't"},
                                                                         {" 's", "'s"},   {" 've", "'ve"},       {" 're", "'re"}};
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      std::string& text = tokens[i].text;
      if (i > 0 || !leading) {
        if (text.starts_with(prefix_)) text.erase(0, prefix_.size());
        else text.insert(text.begin(), ' ');
      }
      if (tidy_)
        for (const auto& [from, to] : shorter) text = replace_all(std::move(text), from, to);
    }
  }

 private:
  std::string prefix_;
  bool tidy_;
};

/// The end of a word becomes a blank, but at the end of the text.
class WordEnds : public TokenDecoder {
 public:
  explicit WordEnds(std::string suffix) : suffix_(std::move(suffix)) {}
  void apply(Tokens& tokens, bool) const override {
    for (Token& token : tokens) token.text = replace_all(std::move(token.text), suffix_, &token == &tokens.back() ? "" : " ");
  }

 private:
  std::string suffix_;
};

/// Words, and a blank between them.
class Words : public TokenDecoder {
 public:
  void apply(Tokens& tokens, bool leading) const override {
    for (std::size_t i = leading ? 1 : 0; i < tokens.size(); ++i) tokens[i].text.insert(tokens[i].text.begin(), ' ');
  }
};

using Made = std::unique_ptr<TokenDecoder>;

template <class Step>
Made read_plain(JsonStep& step) {
  step.passed_over("add_prefix_space", "trim_offsets", "use_regex");
  return std::make_unique<Step>();
}
Made read_strip(JsonStep& step) {
  const std::string content = step.at("content");
  const std::size_t start = step.at("start"), stop = step.at("stop");
  return std::make_unique<Strip>(content, start, stop);
}
Made read_replace(JsonStep& step) {
  return std::make_unique<Replace>(Replacement(step.at("pattern"), step.at("content"), step.place()));
}
Made read_metaspace(JsonStep& step) {
  step.passed_over("str_rep", "split");
  const bool prefixed = step.get("add_prefix_space", true) && step.get("prepend_scheme", std::string("always")) != "never";
  step.passed_over("prepend_scheme");
  return std::make_unique<Metaspace>(step.get("replacement", std::string("\u2581")), prefixed);
}
Made read_wordpiece(JsonStep& step) {
  const std::string prefix = step.get("prefix", std::string("##"));
  return std::make_unique<WordPiece>(prefix, step.get("cleanup", true));
}
Made read_word_ends(JsonStep& step) { return std::make_unique<WordEnds>(step.get("suffix", std::string("</w>"))); }

constexpr StepRow<Made (*)(JsonStep&)> rows[] = {
    {"ByteLevel", read_plain<ByteLevel>}, {"ByteFallback", read_plain<ByteFallback>}, {"Fuse", read_plain<Fuse>},
    {"Strip", read_strip},                {"Replace", read_replace},                  {"Metaspace", read_metaspace},
    {"WordPiece", read_wordpiece},        {"BPEDecoder", read_word_ends},
};

std::vector<Made> default_steps(DefaultDecoder absent) {
  std::vector<Made> steps;
  if (absent == DefaultDecoder::byte_level) steps.push_back(std::make_unique<ByteLevel>());
  if (absent == DefaultDecoder::words) steps.push_back(std::make_unique<Words>());
  if (absent == DefaultDecoder::metaspace) steps.push_back(std::make_unique<Metaspace>("\u2581", false));
  return steps;
}

}  // namespace

std::string DecoderChain::decode(std::vector<TokenDecoder::Token> tokens, bool leading) const {
  for (const auto& step : steps_) step->apply(tokens, leading);
  return all_of(tokens);
}

DecoderChain read_decoder(const json& whole, DefaultDecoder absent, bool byte_tokens, const std::string& name) {
  std::vector<Made> steps;
  for (const json& value : steps_of(whole, "decoders")) {
    JsonStep step(value, "decoder", name);
    steps.push_back(row_of(step, "decoder", rows).read(step));
    step.end();
    byte_tokens = byte_tokens && step.type() != "ByteFallback";
  }
  if (whole.is_null()) steps = default_steps(absent);
  if (byte_tokens) steps.insert(steps.begin(), std::make_unique<ByteFallback>());
  return DecoderChain(std::move(steps));
}

}  // namespace collimate
