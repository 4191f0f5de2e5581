#include <algorithm>
#include <array>
#include <limits>

#include "collimate/base/error.hpp"
#include "data/bpe_json.hpp"
#include "data/token_model.hpp"
#include "data/file_keys.hpp"

namespace collimate {
namespace {

/// Finds all pieces that a text begins with. Children of a node stand side by side, in the order of their bytes.
class PieceTrie {
 public:
  /// `pieces` is sorted and without duplicates.
  explicit PieceTrie(const std::vector<std::pair<std::string, std::int32_t>>& pieces) {
    nodes_.push_back({});
    struct Range {
      std::size_t node, begin, end, depth;
    };
    std::vector<Range> open = {{0, 0, pieces.size(), 0}};
    for (std::size_t next = 0; next < open.size(); ++next) {
      auto [node, begin, end, depth] = open[next];
      if (begin < end && pieces[begin].first.size() == depth) nodes_[node].id = pieces[begin++].second;
      nodes_[node].first = static_cast<std::int32_t>(nodes_.size());
      while (begin < end) {
        std::size_t behind = begin;
        while (behind < end && pieces[behind].first[depth] == pieces[begin].first[depth]) ++behind;
        open.push_back({nodes_.size(), begin, behind, depth + 1});
        nodes_.push_back({.byte = static_cast<unsigned char>(pieces[begin].first[depth])});
        ++nodes_[node].children;
        begin = behind;
      }
    }
  }
  /// found(length, id) for each piece, the shortest first.
  template <class Found>
  void prefixes(std::string_view text, Found found) const {
    const Node* node = &nodes_[0];
    for (std::size_t depth = 0; depth < text.size();) {
      const auto byte = static_cast<unsigned char>(text[depth]);
      const Node *begin = nodes_.data() + node->first, *end = begin + node->children;
      node = std::lower_bound(begin, end, byte, [](const Node& child, unsigned char b) { return child.byte < b; });
      if (node == end || node->byte != byte) return;
      ++depth;
      if (node->id >= 0) found(depth, node->id);
    }
  }

 private:
  struct Node {
    std::int32_t first = 0, id = -1;
    std::uint16_t children = 0;
    unsigned char byte = 0;
  };
  std::vector<Node> nodes_;
};

/// Unigram language model (Kudo 2018): the cut of a word whose pieces have the greatest sum of scores, of equal ones the one found first.
class UnigramModel : public TokenModel {
 public:
  UnigramModel(const json& model, const TokenNames& names, const std::string& name) : trie_(pieces_of(names, model.at("vocab").size())), name_(name) {
    constexpr double penalty = 10;  // of a character that no piece has, below the least score
    double least = std::numeric_limits<double>::infinity();
    for (const json& piece : model.at("vocab")) {
      scores_.push_back(piece.at(1).get<double>());
      least = std::min(least, scores_.back());
    }
    unknown_score_ = least - penalty;
    if (model.contains("unk_id") && !model["unk_id"].is_null()) {
      unknown_ = id_in(model["unk_id"], "unk_id", name);
      require(*unknown_ < static_cast<std::int32_t>(scores_.size()), "{}: the unk_id {} is not in the vocabulary", name, *unknown_);
    }
    if (is_set(model, "byte_fallback")) bytes_ = byte_token_ids(names);
  }
  std::string kind() const override { return "unigram"; }
  std::optional<std::int32_t> unknown() const override { return unknown_; }
  bool has_byte_tokens() const override { return !bytes_.empty(); }

  void encode(std::string_view word, std::vector<std::int32_t>& ids, Scratch& scratch) const override {
    // nodes[i]: the best cut of the first i bytes; its last piece begins at `begin`, -1 for none yet.
    auto& nodes = scratch.nodes;
    nodes.assign(word.size() + 1, {0, -1, -1});
    const auto offer = [&](std::size_t begin, std::size_t end, std::int32_t id, double score) {
      Scratch::Node& node = nodes[end];
      if (node.begin < 0 || score > node.score) node = {score, static_cast<std::int64_t>(begin), id};
    };
    for (std::size_t at = 0; at < word.size();) {
      const std::size_t character = character_length(word.substr(at));
      const double here = nodes[at].score;
      bool single = false;
      trie_.prefixes(word.substr(at), [&](std::size_t length, std::int32_t id) {
        offer(at, at + length, id, scores_[static_cast<std::size_t>(id)] + here);
        single = single || length == character;
      });
      if (!single) offer(at, at + character, -1, unknown_score_ + here);
      at += character;
    }
    const std::size_t first = ids.size();
    for (std::size_t end = word.size(); end > 0;) {
      const bool unknown = is_unknown(nodes[end].id);
      std::size_t begin = static_cast<std::size_t>(nodes[end].begin);
      while (unknown && begin > 0 && is_unknown(nodes[begin].id)) begin = static_cast<std::size_t>(nodes[begin].begin);
      if (unknown) append_unknown(word.substr(begin, end - begin), ids);
      else ids.push_back(nodes[end].id);
      end = begin;
    }
    std::reverse(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end());
  }

 private:
  /// Those that data may consist of.
  static std::vector<std::pair<std::string, std::int32_t>> pieces_of(const TokenNames& names, std::size_t count) {
    std::vector<std::pair<std::string, std::int32_t>> pieces;
    for (std::int32_t id = 0; id < static_cast<std::int32_t>(count); ++id)
      if (const auto& token = names[id]; !token.special && !token.name.empty() && names.find(token.name) == id)
        pieces.emplace_back(token.name, id);
    std::sort(pieces.begin(), pieces.end());
    return pieces;
  }
  bool is_unknown(std::int32_t id) const { return id < 0 || id == unknown_; }
  /// In reverse, as all of a word is.
  void append_unknown(std::string_view text, std::vector<std::int32_t>& ids) const {
    if (!bytes_.empty()) {
      for (std::size_t i = text.size(); i-- > 0;) ids.push_back(bytes_[static_cast<unsigned char>(text[i])]);
      return;
    }
    require(unknown_.has_value(), "{}: the vocabulary has no piece for '{}' and no unk_id, so it cannot be encoded", name_, text);
    ids.push_back(*unknown_);
  }

  PieceTrie trie_;
  std::vector<double> scores_;  // by id
  std::vector<std::int32_t> bytes_;
  std::optional<std::int32_t> unknown_;
  double unknown_score_ = 0;
  std::string name_;
};

}  // namespace

std::unique_ptr<TokenModel> read_unigram_model(const json& model, const TokenNames& names, const std::string& name) {
  return std::make_unique<UnigramModel>(model, names, name);
}

}  // namespace collimate
