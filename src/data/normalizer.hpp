#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/pretokenizer.hpp"

namespace collimate {

/// Changes a text before it is cut: normal forms, letter case, blanks. Text is bytes; those that are not UTF-8 stay as they are.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(std::string& text, Edge edge) const = 0;
  virtual bool prefixes() const { return false; }  ///< puts something before every text
  /// Whether what becomes of a text depends on where it ends, so that the text around a token must not be changed apart from it.
  virtual bool looks_at_ends() const { return false; }
};

/// The steps of a tokenizer.json's "normalizer", one behind the other; perhaps none.
class NormalizerChain {
 public:
  NormalizerChain() = default;
  explicit NormalizerChain(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  bool empty() const { return steps_.empty(); }
  void apply(std::string& text, Edge edge) const {
    for (const auto& step : steps_) step->apply(text, edge);
  }
  bool prefixes() const;
  bool looks_at_ends() const;

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

/// `whole` is the value of "normalizer", `name` the file.
NormalizerChain read_normalizer(const nlohmann::json& whole, const std::string& name);

/// SentencePiece's table of character sequences and what replaces them ("precompiled_charsmap", in base64).
std::unique_ptr<Normalizer> make_precompiled_normalizer(const std::string& base64, const std::string& place);

}  // namespace collimate
