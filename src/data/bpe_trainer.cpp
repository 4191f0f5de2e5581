#include <algorithm>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "collimate/base/error.hpp"
#include "data/bpe_tokenizer.hpp"
#include "data/pretokenizer.hpp"

namespace collimate {
namespace {

struct Word {
  std::vector<std::int32_t> symbols;
  std::int64_t count;
};

std::uint64_t key_of(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}
std::int32_t left_of(std::uint64_t key) { return static_cast<std::int32_t>(key >> 32); }
std::int32_t right_of(std::uint64_t key) { return static_cast<std::int32_t>(key & 0xFFFFFFFF); }

/// Counts of all neighbouring pairs in all words, kept up to date while pairs are merged.
class PairCounts {
 public:
  PairCounts(std::vector<Word> words, const BpeModel& model) : words_(std::move(words)), model_(model), queue_(Before{model}) {
    for (std::size_t w = 0; w < words_.size(); ++w) {
      const auto& symbols = words_[w].symbols;
      for (std::size_t i = 0; i + 1 < symbols.size(); ++i) change(key_of(symbols[i], symbols[i + 1]), words_[w].count, w);
    }
    queue_changes();
  }

  /// The most frequent pair, or nothing; of equally frequent ones the greatest pair of byte strings.
  std::optional<std::uint64_t> best() {
    // An entry whose count has since changed is put back with the true one: counts of old pairs only fall.
    while (!queue_.empty()) {
      const Entry entry = queue_.top();
      queue_.pop();
      const std::int64_t count = pairs_[entry.key].count;
      if (count == entry.count) return entry.key;
      if (count > 0 && count < entry.count) queue_.push({count, entry.key});
    }
    return std::nullopt;
  }

  /// Replaces the pair by `merged` in every word that has it, from left to right.
  void merge(std::uint64_t key, std::int32_t merged) {
    const std::unordered_set<std::size_t> where = std::move(pairs_[key].words);
    for (const std::size_t w : where) merge_word(w, left_of(key), right_of(key), merged);
    pairs_.erase(key);
    changed_.erase(key);
    queue_changes();
  }

 private:
  struct Pair {
    std::int64_t count = 0;
    std::unordered_set<std::size_t> words;  // that have or had it
  };
  struct Entry {
    std::int64_t count;
    std::uint64_t key;
  };
  struct Before {
    const BpeModel& model;
    bool operator()(const Entry& a, const Entry& b) const {
      if (a.count != b.count) return a.count < b.count;
      const auto bytes = [&](std::int32_t id) -> const std::string& { return model.pieces[id].bytes; };
      const int left = bytes(left_of(a.key)).compare(bytes(left_of(b.key)));
      return left != 0 ? left < 0 : bytes(right_of(a.key)) < bytes(right_of(b.key));
    }
  };

  void change(std::uint64_t key, std::int64_t by, std::size_t word) {
    Pair& pair = pairs_[key];
    pair.count += by;
    if (by > 0) {
      pair.words.insert(word);
      changed_.insert(key);
    }
  }

  void queue_changes() {
    for (const std::uint64_t key : changed_)
      if (pairs_[key].count > 0) queue_.push({pairs_[key].count, key});
    changed_.clear();
  }

  void merge_word(std::size_t w, std::int32_t left, std::int32_t right, std::int32_t merged) {
    auto& symbols = words_[w].symbols;
    const std::int64_t count = words_[w].count;
    std::size_t out = 0;
    for (std::size_t i = 0; i < symbols.size(); ++i, ++out) {
      const bool here = i + 1 < symbols.size() && symbols[i] == left && symbols[i + 1] == right;
      if (!here) {
        symbols[out] = symbols[i];
        continue;
      }
      if (out > 0) {
        change(key_of(symbols[out - 1], left), -count, w);
        change(key_of(symbols[out - 1], merged), count, w);
      }
      if (i + 2 < symbols.size()) {
        change(key_of(right, symbols[i + 2]), -count, w);
        change(key_of(merged, symbols[i + 2]), count, w);
      }
      symbols[out] = merged;
      ++i;
    }
    symbols.resize(out);
  }

  std::vector<Word> words_;
  const BpeModel& model_;
  std::unordered_map<std::uint64_t, Pair> pairs_;
  std::unordered_set<std::uint64_t> changed_;  // pairs whose count rose since they were last queued
  std::priority_queue<Entry, std::vector<Entry>, Before> queue_;
};

}  // namespace

struct BpeTrainer::Words {
  Words() : words(gpt2_expression(), "the BPE trainer") {}

  /// Counts the words of a text, but for its special tokens.
  void count(std::string_view text) {
    const TextRange all[] = {{0, text.size()}};
    std::size_t done = 0;
    while (const auto match = special.find(text, done, all)) {
      count_words(text.substr(done, match->position - done));
      done = match->position + match->length;
    }
    count_words(text.substr(done));
  }

  void count_words(std::string_view text) {
    cut_words(words, text, [&](std::string_view word) { ++counts[std::string(word)]; });
  }

  Expression words;
  AddedTokens special;
  std::unordered_map<std::string, std::int64_t> counts;
};

BpeTrainer::BpeTrainer(SpecialNames special) : words_(std::make_unique<Words>()), special_(std::move(special)) {
  const BpeModel model = bytes_model(special_, false);
  for (std::size_t id = 0; id < special_.all.size(); ++id) words_->special.add(model.pieces[id].bytes, static_cast<std::int32_t>(id), true);
}

BpeTrainer::~BpeTrainer() = default;

void BpeTrainer::add(std::string_view document) { words_->count(document); }

BpeTraining BpeTrainer::train(std::int64_t vocabulary) const {
  BpeModel model = bytes_model(special_, false);
  BpeTraining result;
  result.requested = vocabulary - static_cast<std::int64_t>(model.pieces.size());
  require(result.requested >= 0, "a BPE vocabulary of {} is too small: the bytes and special tokens alone are {}", vocabulary,
          model.pieces.size());
  require(vocabulary <= 1 << 24, "a BPE vocabulary of {} is too large: at most {}", vocabulary, 1 << 24);
  result.words = static_cast<std::int64_t>(words_->counts.size());

  std::unordered_map<std::string, std::int32_t> ids;
  for (std::size_t id = 0; id < model.pieces.size(); ++id)
    if (!model.pieces[id].special) ids.emplace(model.pieces[id].bytes, static_cast<std::int32_t>(id));
  std::vector<Word> words;
  for (const auto& [text, count] : words_->counts) {
    Word word{{}, count};
    for (const char c : text) word.symbols.push_back(ids.at(std::string(1, c)));
    words.push_back(std::move(word));
  }

  PairCounts pairs(std::move(words), model);
  while (static_cast<std::int64_t>(result.merges.size()) < result.requested) {
    const auto best = pairs.best();
    if (!best) break;
    const std::int32_t left = left_of(*best), right = right_of(*best);
    const std::string bytes = model.pieces[left].bytes + model.pieces[right].bytes;
    const auto [found, fresh] = ids.emplace(bytes, static_cast<std::int32_t>(model.pieces.size()));
    if (fresh) model.pieces.push_back({bytes, true, false, false, false});
    model.merges.push_back({left, right, found->second});
    result.merges.emplace_back(model.pieces[left].bytes, model.pieces[right].bytes);
    pairs.merge(*best, found->second);
  }
  const SpecialIds special = take_special_ids(model, special_);
  result.tokenizer = make_bpe_tokenizer(model, special, "the trained BPE tokenizer");
  return result;
}

}  // namespace collimate
