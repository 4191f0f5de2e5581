#include "collimate/base/error.hpp"
#include "data/bpe_json.hpp"
#include "data/token_model.hpp"

namespace collimate {
namespace {

/// A model that has words, and one token for all others.
class WordModel : public TokenModel {
 public:
  WordModel(const json& model, const TokenNames& names, const std::string& name) : names_(names), unknown_(names.find(model.at("unk_token").get<std::string>())) {
    require(unknown_.has_value(), "{}: the unk_token {} is not in the vocabulary", name, model["unk_token"].dump());
  }
  std::optional<std::int32_t> unknown() const override { return unknown_; }

 protected:
  std::optional<std::int32_t> find(std::string_view word) const {
    const auto id = names_.find(word);
    return id && !names_[*id].special ? id : std::nullopt;
  }

 private:
  const TokenNames& names_;
  std::optional<std::int32_t> unknown_;
};

class WordLevel : public WordModel {
 public:
  using WordModel::WordModel;
  std::string kind() const override { return "wordlevel"; }
  void encode(std::string_view word, std::vector<std::int32_t>& ids, Scratch&) const override { ids.push_back(find(word).value_or(*unknown())); }
};

/// WordPiece: the longest piece that the rest of the word begins with; one unknown token where there is none.
class WordPiece : public WordModel {
 public:
  WordPiece(const json& model, const TokenNames& names, const std::string& name)
      : WordModel(model, names, name),
        prefix_(model.value("continuing_subword_prefix", "##")),
        longest_(model.value("max_input_chars_per_word", std::size_t{100})) {}
  std::string kind() const override { return "wordpiece"; }
  void encode(std::string_view word, std::vector<std::int32_t>& ids, Scratch& scratch) const override {
    std::vector<std::size_t> ends;  // of the characters
    for (std::size_t at = 0; at < word.size();) ends.push_back(at += character_length(word.substr(at)));
    auto& pieces = scratch.symbols;
    pieces.clear();
    std::size_t begin = 0;
    for (std::size_t first = 0; first < ends.size() && ends.size() <= longest_;) {
      std::size_t last = ends.size();
      std::optional<std::int32_t> id;
      for (; last > first && !id; --last) {
        const std::string piece = (begin > 0 ? prefix_ : "") + std::string(word.substr(begin, ends[last - 1] - begin));
        id = find(piece);
        if (id) break;
      }
      if (!id) break;
      pieces.push_back(*id);
      first = last;
      begin = ends[last - 1];
    }
    if (begin < word.size()) ids.push_back(*unknown());
    else ids.insert(ids.end(), pieces.begin(), pieces.end());
  }

 private:
  std::string prefix_;
  std::size_t longest_;
};

}  // namespace

std::unique_ptr<TokenModel> read_wordpiece_model(const json& model, const TokenNames& names, const std::string& name) {
  return std::make_unique<WordPiece>(model, names, name);
}
std::unique_ptr<TokenModel> read_wordlevel_model(const json& model, const TokenNames& names, const std::string& name) {
  return std::make_unique<WordLevel>(model, names, name);
}

}  // namespace collimate
