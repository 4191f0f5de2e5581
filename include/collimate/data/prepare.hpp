#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "collimate/data/dataset.hpp"
#include "collimate/data/formats.hpp"
#include "collimate/data/records.hpp"
#include "collimate/data/template.hpp"

namespace collimate {

/// Which preference pairs form a group, whose pairs are learned from together.
enum class PairGroups {
  prompt,       ///< all of one prompt, wherever they stand
  consecutive,  ///< those of one prompt that follow each other
  none,         ///< each pair alone
};
PairGroups pair_groups_named(std::string_view name);

/// What `prepare` is asked to do: input files -> tokenizer -> dataset, perhaps with a held-out part.
struct PrepareOptions {
  std::vector<std::string> inputs;
  RecordOptions reading;
  SampleFormat format = SampleFormat::automatic;  ///< automatic: each file by its first good record
  std::optional<DatasetKind> kind;                ///< unset: what the first file's format holds
  FieldNames names;                               ///< columns with names of their own
  Learn learn = Learn::last;
  Template rules;  ///< add_bos and add_eos are switched off where the tokenizer has no such token
  /// "bytes", a tokenizer file or model folder, or a dataset made before (its tokenizer). Ignored with train_bpe.
  std::string tokenizer = "bytes";
  std::string tokenizer_pattern;     ///< see load_tokenizer
  bool bos_given = false;            ///< rules.add_bos was asked for; else a tokenizer's files may say that texts begin without BOS
  bool special_in_text = false;      ///< the text of a special token in a record is that token; else it is letters, and counted
  std::string serialized_tokenizer;  ///< what Tokenizer::serialize gave; if not empty, this tokenizer is taken
  std::int64_t train_bpe = 0;      ///< vocabulary of a byte-level BPE trained on the inputs' prompts and responses; 0: none
  std::string like;                ///< a dataset whose tokenizer and template are taken, so that stages fit together
  std::int64_t context = 0;        ///< of the model that the data are for, in tokens; longer plain texts are warned of; 0: not known
  std::int64_t text_window = 0;    ///< plain text is cut into samples of at most this many tokens, none lost; 0: not cut
  std::string output;              ///< dataset file
  PairGroups pair_groups = PairGroups::prompt;
  double held_out_fraction = 0;    ///< of the records; pairs of one prompt stay together; chosen by `seed` alone
  std::string held_out_output;     ///< needed with a fraction above 0
  std::uint64_t seed = 1;
};

/// What became of the input.
struct PrepareReport {
  DatasetKind kind = DatasetKind::supervised;
  Template rules;                         ///< as stored
  std::int64_t records = 0, bad = 0;      ///< records read; skipped ones
  std::vector<std::string> complaints;    ///< the first five skipped, in words
  std::map<std::string, std::int64_t> unused;  ///< in how many of the records a field held something that the format does not use
  std::map<std::string, std::int64_t> left_out;  ///< how many records were left out, by the reason in words
  std::string letters;                         ///< a line on what looks like a special token in the template and is none, else ""
  Notes notes;                                 ///< of the tokenizer, and on how dialogues of hh-rlhf were read
  std::string special;                         ///< a line on texts that hold the text of special tokens, else ""
  LengthCounts lengths;
  std::int64_t long_texts = 0, longest_text = 0, text_limit = 0;  ///< plain-text samples above the limit; tokens of the longest; the limit
  std::int64_t samples = 0, tokens = 0, targets = 0;                             ///< of the output
  std::int64_t held_out_samples = 0, held_out_tokens = 0, held_out_targets = 0;  ///< of the held-out output
  std::int64_t vocabulary = 0, wanted_vocabulary = 0;  ///< wanted: of a tokenizer that was trained
  std::uint64_t tokenizer_fingerprint = 0;
  void count_text(std::int64_t tokens);  ///< a sample of plain text
  std::string text() const;  ///< a few lines to print
  std::string vocabulary_text() const;  ///< a line where the trained tokenizer has fewer tokens than wanted, else ""
};

/// Reads the inputs as a stream (twice with train_bpe or a held-out part) and writes the dataset file or files; on an error neither
/// appears.
PrepareReport prepare(const PrepareOptions& options);

/// A few lines on a dataset: kind, counts, template, tokenizer, and the text and tokens of its first samples.
std::string describe(const Dataset& dataset, std::int64_t samples = 2);

}  // namespace collimate
