#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace collimate {

/// The token ids with a part to play besides text; those a tokenizer does not have are empty.
struct SpecialIds {
  std::optional<std::int32_t> bos, eos, pad, unknown;
  bool operator==(const SpecialIds&) const = default;
};

/// The bytes [begin, end) of a text.
struct TextRange {
  std::size_t begin, end;
  bool operator==(const TextRange&) const = default;
};

/// Lines for the user on what a tokenizer's files hold and Collimate does not use, each naming the file and the key.
using Notes = std::vector<std::string>;

/// Turns text into token ids and back; text is bytes and may be invalid UTF-8. Safe to use from several threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Token ids of `text`; nothing is added before or after. The text of a special token inside `text` is plain text, unless it lies wholly
  /// in one of the ranges `special_in`, which ascend; of several tokens that begin at one byte the longest counts, and what stands before,
  /// between and behind them is encoded by itself. A kind that has neither a token for a character or byte of the text nor an unknown one
  /// refuses it.
  std::vector<std::int32_t> encode(std::string_view text, std::span<const TextRange> special_in = {}) const;
  /// The bytes that `ids` stand for. Special tokens stand for nothing, unless `with_special`; an id outside [0, vocabulary) is refused.
  std::string decode(std::span<const std::int32_t> ids, bool with_special = false) const;
  /// The same for what follows the tokens `before`. Where these end in text, the blank that some kinds put before every text stays away, so
  /// that decode(before and encode_after(before, text)) is decode(before) + text; where they end in a special token behind text, it comes
  /// as it does behind one inside a text, and decode_after takes it away again. A last token that takes blanks with it takes those of
  /// `text`. A model may have more rows than there are tokens, and draw one: behind the vocabulary ids decode to nothing.
  std::vector<std::int32_t> encode_after(std::span<const std::int32_t> before, std::string_view text,
                                         std::span<const TextRange> special_in = {}) const;
  std::string decode_after(std::span<const std::int32_t> before, std::span<const std::int32_t> ids) const;

  virtual std::string kind() const = 0;              ///< "bytes", "bpe", "metaspace", "unigram", "wordpiece", "wordlevel", "sentencepiece" or "llama2c"
  virtual std::int64_t vocabulary() const = 0;       ///< number of ids; some may be unused
  virtual std::string piece(std::int32_t id) const = 0;  ///< a printable name of one token, "" for an unused id
  virtual std::optional<std::int32_t> id_of(std::string_view piece) const = 0;  ///< the inverse of piece()
  virtual bool is_special(std::int32_t id) const = 0;    ///< decodes to nothing

  std::optional<std::int32_t> bos() const { return special_.bos; }
  std::optional<std::int32_t> eos() const { return special_.eos; }
  std::optional<std::int32_t> pad() const { return special_.pad; }
  std::optional<std::int32_t> unknown() const { return special_.unknown; }
  const SpecialIds& special_ids() const { return special_; }
  /// Of the files that it was loaded from; a stored tokenizer has none. For `import` and `prepare` to print.
  const Notes& notes() const { return notes_; }
  void add_notes(const Notes& notes) { notes_.insert(notes_.end(), notes.begin(), notes.end()); }

  /// Everything that deserialize_tokenizer() needs: one line of JSON, then the body, which may hold any byte (also NUL).
  std::string serialize() const;
  /// 64-bit FNV-1a hash of serialize(): equal for tokenizers that give the same ids.
  std::uint64_t fingerprint() const;

  virtual std::string file_name() const = 0;  ///< what other programs call the file: "tokenizer.json", "tokenizer.model", "tokenizer.bin"
  virtual std::string file_bytes() const = 0; ///< content of that file

 protected:
  /// Of a text: at the start, where some kinds put a blank of their own; right behind a special token that follows other text, where fewer
  /// do; or behind other text, where none does.
  enum class Place { start, behind_special, behind };
  /// What encode_after() does, stored with the tokenizer and so part of its fingerprint.
  enum class Rule {
    apart = 1,      ///< it encodes every text as if it were the first: kinds without a blank of their own, and what older versions stored
    continuing = 2  ///< it encodes a text behind another one as its continuation
  };
  explicit Tokenizer(SpecialIds special, Rule rule = Rule::apart) : special_(special), rule_(rule) {}

 private:
  friend std::unique_ptr<Tokenizer> deserialize_tokenizer(const std::string& bytes);
  friend std::unique_ptr<Tokenizer> with_special_ids(std::unique_ptr<Tokenizer> tokenizer, const SpecialIds& ids);
  void set_special_ids(const SpecialIds& ids);  // refuses ids outside the vocabulary
  virtual std::vector<std::int32_t> encode_text(std::string_view text, Place place, std::span<const TextRange> special_in) const = 0;
  virtual bool takes_blanks_behind(std::int32_t) const { return false; }  // the token, of the text behind it
  virtual std::string decode_ids(std::span<const std::int32_t> ids, Place place, bool with_special) const = 0;
  void check_ids(std::span<const std::int32_t> ids) const;
  Place place_after(std::span<const std::int32_t> before) const;

  SpecialIds special_;
  Rule rule_;
  Notes notes_;
};

/// Loads the tokenizer of a file or a model folder, which may hold several; the first of these counts: tokenizer.json (BPE, Unigram, WordPiece
/// or WordLevel); vocab.json with merges.txt or encoder.json with vocab.bpe, with any prefix such as gpt2_; *.model (SentencePiece, or a
/// tiktoken file); *.tiktoken; tok*.bin (llama2.c). In a folder that `export` made, the file that the others were made of. The files beside it
/// change it as transformers lets them. Special ids come from tokenizer_config.json, special_tokens_map.json, the file itself, or config.json
/// beside it, in this order; "bos_token": null in the first says that there is no BOS, unless the second names one. What would change the ids
/// and is not supported is refused in a sentence.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path);
bool denies_bos(const std::string& path);         ///< whether the files beside a tokenizer, or in its folder, say that it has no BOS
bool holds_tokenizer(const std::string& folder);  ///< whether load_tokenizer would find one there

/// The tokenizer with these ids; refuses those outside the vocabulary. Its BOS and EOS are special from now on, though its file may have
/// them as added tokens that are not, which a text could then forge. Ordinary pieces (single characters, what merges make) stay ordinary.
std::unique_ptr<Tokenizer> with_special_ids(std::unique_ptr<Tokenizer> tokenizer, const SpecialIds& ids);

/// The tokenizer that serialize() wrote.
std::unique_ptr<Tokenizer> deserialize_tokenizer(const std::string& bytes);

/// Writes file_name() and a tokenizer_config.json into a folder (made if absent), for other programs and for load_tokenizer(). Beside a
/// file that is no tokenizer.json it puts one that gives the same ids, where there can be one.
void save_tokenizer(const Tokenizer& tokenizer, const std::string& folder);

/// Names of special tokens for a new tokenizer, in id order, and the parts that some of them play ("" for none).
struct SpecialNames {
  std::vector<std::string> all = {"<|endoftext|>"};
  std::string bos, eos = "<|endoftext|>", pad;
};

/// A tokenizer whose ids 0-255 are the bytes, followed by the special tokens.
std::unique_ptr<Tokenizer> byte_tokenizer(const SpecialNames& special = {});

/// What training a BPE tokenizer gives.
struct BpeTraining {
  std::unique_ptr<Tokenizer> tokenizer;  ///< ids: special tokens, 256 bytes in GPT-2's order, merges
  std::vector<std::pair<std::string, std::string>> merges;  ///< byte strings of the merged pairs, in order
  std::int64_t requested = 0;  ///< merges asked for; fewer were made where the text ran out of pairs
  std::int64_t words = 0;      ///< different words counted
};

/// Trains a byte-level BPE tokenizer with GPT-2's pre-tokenizer. Text is counted as it comes: memory holds the different words only.
/// The most frequent pair is merged first; of equally frequent ones the lexicographically greatest pair of byte strings.
class BpeTrainer {
 public:
  explicit BpeTrainer(SpecialNames special = {});  ///< special tokens found in a text separate it and are not learned from
  ~BpeTrainer();
  void add(std::string_view document);
  /// Merges until the vocabulary (special tokens + 256 + merges) has this size or no pair is left.
  BpeTraining train(std::int64_t vocabulary) const;

 private:
  struct Words;
  std::unique_ptr<Words> words_;
  SpecialNames special_;
};

}  // namespace collimate
