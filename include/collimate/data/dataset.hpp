#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "collimate/data/formats.hpp"
#include "collimate/data/template.hpp"
#include "collimate/data/tokenizer.hpp"

namespace collimate {

/// One sequence to learn from; mask is 1 on the tokens that are learned (the response with its EOS), 0 on the prompt.
struct SupervisedSample {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> mask;
  std::string prompt, response;  ///< the text behind them
  bool operator==(const SupervisedSample&) const = default;
};

/// Two answers to one prompt; the sequence of an answer is the group's prompt followed by it.
struct PreferencePair {
  std::vector<std::int32_t> chosen, rejected;
  double margin = 0;
  std::string chosen_text, rejected_text, category;
  bool operator==(const PreferencePair&) const = default;
};

/// All pairs of one prompt: they stay in one grain.
struct PreferenceGroup {
  std::vector<std::int32_t> prompt;
  std::string text;
  std::vector<PreferencePair> pairs;
  std::int64_t rows() const;  ///< tokens of all its sequences, each with the prompt
  bool operator==(const PreferenceGroup&) const = default;
};

/// A prompt to generate from, perhaps with a reference answer for scorers that compare.
struct PromptSample {
  std::vector<std::int32_t> tokens;
  std::string text, answer;
  bool operator==(const PromptSample&) const = default;
};

/// Writes a dataset as a stream: memory stays below buffer_limit however long the dataset becomes (but for about 100 bytes a group where
/// these are joined). The file appears at `finish`. Layout: README.md of src/data. A sample that is empty, or whose token is outside of
/// the vocabulary, is refused.
class DatasetWriter {
 public:
  static constexpr std::size_t buffer_limit = 4 << 20;  ///< bytes

  /// join_groups: preference groups with the same prompt, text and tokens, become one, where the first of them stands.
  DatasetWriter(const std::string& path, DatasetKind kind, const Template& rules, const Tokenizer& tokenizer, bool join_groups = false);
  DatasetWriter(DatasetWriter&&) noexcept;
  ~DatasetWriter();  ///< without finish(): nothing is left behind
  void add(const SupervisedSample& sample);
  void add(const PreferenceGroup& group);
  void add(const PromptSample& sample);
  std::int64_t samples() const;  ///< groups in a preference dataset
  std::int64_t tokens() const;   ///< rows of all samples
  std::int64_t targets() const;  ///< learned tokens (supervised), pairs (preference)
  std::size_t buffered_bytes() const;
  void seal();    ///< writes all that is left; nothing can be added any more
  void finish();  ///< seals, then gives the file its name

 private:
  struct Columns;
  std::unique_ptr<Columns> columns_;
};

/// A dataset file, open for reading; samples are read from the file as they are asked for. For one thread.
class Dataset {
 public:
  /// Throws where the file is not a whole dataset. `verify` also reads everything once: checksums and token ids.
  explicit Dataset(const std::string& path, bool verify = true);
  Dataset(Dataset&&) noexcept;
  ~Dataset();
  const std::string& path() const;
  DatasetKind kind() const;
  std::int64_t size() const;     ///< samples; groups in a preference dataset
  std::int64_t tokens() const;   ///< rows of all samples
  std::int64_t targets() const;  ///< learned tokens (supervised), pairs (preference)
  std::int64_t vocabulary() const;
  const Template& rules() const;
  std::string tokenizer() const;  ///< for deserialize_tokenizer
  std::uint64_t tokenizer_fingerprint() const;
  const std::string& checksum() const;  ///< of the whole content, 16 hexadecimal digits

  std::int64_t rows(std::int64_t sample) const;     ///< what the sample adds to a grain
  std::int64_t longest(std::int64_t sample) const;  ///< tokens of the longest of its sequences
  std::int64_t pairs(std::int64_t group) const;     ///< of a preference dataset
  SupervisedSample supervised(std::int64_t sample) const;
  PreferenceGroup preference(std::int64_t group) const;
  PromptSample prompt(std::int64_t sample) const;

  /// Throws, naming file and sample, where a token id is not below `vocabulary`, for example that of a model.
  void check_vocabulary(std::int64_t vocabulary) const;
  /// Throws where the dataset is of another kind, or was made with another template or tokenizer than `whose` ("the checkpoint 'c'").
  void check_kind(DatasetKind wanted) const;
  void check_rules(const Template& rules, std::uint64_t fingerprint, std::string_view whose) const;

 private:
  struct Columns;
  std::unique_ptr<Columns> columns_;
};

}  // namespace collimate
