#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace collimate {

/// A step from tokens back to text.
class TokenDecoder {
 public:
  struct Token {
    std::string text;
    bool added = false;  ///< its text is what stands in the text
  };
  virtual ~TokenDecoder() = default;
  /// `leading`: the text stands where encoding puts a blank of its own, which goes again.
  virtual void apply(std::vector<Token>& tokens, bool leading) const = 0;
};

/// The steps of a tokenizer.json's "decoder", one behind the other.
class DecoderChain {
 public:
  explicit DecoderChain(std::vector<std::unique_ptr<TokenDecoder>> steps) : steps_(std::move(steps)) {}
  std::string decode(std::vector<TokenDecoder::Token> tokens, bool leading) const;

 private:
  std::vector<std::unique_ptr<TokenDecoder>> steps_;
};

/// What a file without a decoder has: the inverse of the rest.
enum class DefaultDecoder { byte_level, metaspace, words };

/// `whole` is the value of "decoder", `name` the file. `byte_tokens`: the model has them, so they become bytes though no step says so.
DecoderChain read_decoder(const nlohmann::json& whole, DefaultDecoder absent, bool byte_tokens, const std::string& name);

}  // namespace collimate
