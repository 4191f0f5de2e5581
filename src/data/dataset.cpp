#include "collimate/data/dataset.hpp"

#include <algorithm>
#include <optional>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "data/columns.hpp"

namespace collimate {

struct Dataset::Columns {
  using Ids = RaggedReader<std::int32_t>;
  using Texts = RaggedReader<std::uint8_t>;

  explicit Columns(const std::string& path) : file(open(path)), kind(dataset_kind_named(file.text_attribute("/", "kind"))) {
    size = file.integer_attribute("/", "samples");
    tokens_in_all = file.integer_attribute("/", "tokens");
    targets = file.integer_attribute("/", "targets");
    vocabulary = file.integer_attribute("/", "vocabulary");
    sum = file.text_attribute("/", "checksum");
    rules = read_rules();
    prompt_text.emplace(file, "/prompt_text");
    check_count(prompt_text->size(), size, "/prompt_text");
    if (kind == DatasetKind::supervised) {
      tokens.emplace(file, "/tokens");
      response_text.emplace(file, "/response_text");
      check_count(tokens->size(), size, "/tokens");
      check_count(file.info("/mask").shape[0], tokens->elements(), "/mask");
      check_count(response_text->size(), size, "/response_text");
      return;
    }
    prompt.emplace(file, "/prompt");
    check_count(prompt->size(), size, "/prompt");
    if (kind == DatasetKind::prompts) {
      answer_text.emplace(file, "/answer_text");
      check_count(answer_text->size(), size, "/answer_text");
      return;
    }
    open_pairs();
  }

  void open_pairs() {
    pair_offsets = file.read<std::int64_t>("/pair_offsets");
    check_count(static_cast<std::int64_t>(pair_offsets.size()), size + 1, "/pair_offsets");
    const std::int64_t pairs = file.info("/margin").shape[0];
    require(pair_offsets.front() == 0 && pair_offsets.back() == pairs && std::is_sorted(pair_offsets.begin(), pair_offsets.end()),
            "the dataset file '{}' is damaged: '/pair_offsets' does not fit its {} pairs; prepare it again", file.path(), pairs);
    chosen.emplace(file, "/chosen");
    rejected.emplace(file, "/rejected");
    chosen_text.emplace(file, "/chosen_text");
    rejected_text.emplace(file, "/rejected_text");
    category.emplace(file, "/category");
    if (file.exists("/groups")) open_groups();
    for (const std::int64_t held : {chosen->size(), rejected->size(), chosen_text->size(), rejected_text->size(), category->size()})
      check_count(held, pairs, "/chosen, /rejected and their texts");
  }

  Template read_rules() const {
    try {
      return Template::from_json(file.read_text("/template"));
    } catch (const Error& error) {
      fail("the dataset file '{}' is damaged: {}; copy it again or prepare it again", file.path(), error.what());
    }
  }

  void open_groups() {
    const RaggedReader<std::int64_t> groups(file, "/groups");
    check_count(groups.elements(), size, "/groups");
    for (std::int64_t group = 0; group < groups.size(); ++group) {
      rows_of_group.push_back(groups.row(group));
      for (const std::int64_t row : rows_of_group.back())
        require(row >= 0 && row < size, "the dataset file '{}' is damaged: '/groups' names row {} of {}; prepare it again", file.path(),
                row, size);
      check_count(!rows_of_group.back().empty(), 1, "/groups");
    }
    size = groups.size();
  }
  /// Calls visit(row, pair) for each pair of a group.
  void for_each_pair(std::int64_t group, auto&& visit) const {
    const std::vector<std::int64_t> rows = rows_of_group.empty() ? std::vector{group} : rows_of_group[group];
    for (const std::int64_t row : rows)
      for (std::int64_t pair = pair_offsets[row]; pair < pair_offsets[row + 1]; ++pair) visit(row, pair);
  }
  std::int64_t first_row(std::int64_t sample) const { return rows_of_group.empty() ? sample : rows_of_group[sample].front(); }

  static Hdf5File open(const std::string& path) {
    Hdf5File file = Hdf5File::open(path);
    require(file.has_attribute("/", "format") && file.text_attribute("/", "format") == "collimate-dataset",
            "'{}' is an HDF5 file, but no dataset of Collimate; make one with `collimate prepare`", path);
    const std::int64_t version = file.integer_attribute("/", "version");
    require(version == 1 || version == 2, "the dataset '{}' has the format version {}, this program reads 1 and 2; prepare it again", path,
            version);
    return file;
  }
  void check_count(std::int64_t held, std::int64_t wanted, std::string_view name) const {
    require(held == wanted, "the dataset file '{}' is damaged: '{}' has {} entries instead of {}; prepare it again", file.path(), name,
            held, wanted);
  }
  void check_index(std::int64_t sample, DatasetKind wanted) const {
    ensure(kind == wanted, "the {} dataset '{}' was asked for a {} sample", name_of(kind), file.path(), name_of(wanted));
    ensure(0 <= sample && sample < size, "sample {} is outside of the {} samples of '{}'", sample, size, file.path());
  }

  template <class T>
  void verify_column(const std::string& name, Checksum& whole) const {
    Checksum computed;
    for_each_block<T>(file, name, [&](std::int64_t, std::span<const T> values) { computed.add(values); });
    const std::string text = checksum_text(computed.value());
    require(text == file.text_attribute(name, "checksum"),
            "the dataset file '{}' is damaged: the checksum of '{}' does not fit; copy it again or prepare it again", file.path(), name);
    whole.add(name + " " + text + "\n");
  }
  template <class T>
  void verify_ragged(const std::string& name, Checksum& whole) const {
    verify_column<T>(name + "/values", whole);
    verify_column<std::int64_t>(name + "/offsets", whole);
  }
  std::string tokenizer_bytes() const {
    const auto bytes = file.read<std::uint8_t>("/tokenizer");
    return {bytes.begin(), bytes.end()};
  }
  /// In the order in which DatasetWriter finishes them.
  void verify() const {
    Checksum whole;
    whole.add(fmt::format("{} {} {}\n{}\n", name_of(kind), vocabulary, file.read_text("/template"), tokenizer_bytes()));
    if (kind == DatasetKind::supervised) {
      verify_ragged<std::int32_t>("/tokens", whole);
      verify_column<std::uint8_t>("/mask", whole);
    } else {
      verify_ragged<std::int32_t>("/prompt", whole);
    }
    if (!rows_of_group.empty()) verify_ragged<std::int64_t>("/groups", whole);
    if (kind == DatasetKind::preference) {
      verify_column<std::int64_t>("/pair_offsets", whole);
      verify_ragged<std::int32_t>("/chosen", whole);
      verify_ragged<std::int32_t>("/rejected", whole);
      verify_column<double>("/margin", whole);
    }
    for (const std::string name : {"/prompt_text", "/response_text", "/chosen_text", "/rejected_text", "/category", "/answer_text"})
      if (file.exists(name)) verify_ragged<std::uint8_t>(name, whole);
    require(checksum_text(whole.value()) == sum,
            "the dataset file '{}' is damaged: its attributes, template or tokenizer were changed; prepare it again", file.path());
  }

  Hdf5File file;
  DatasetKind kind;
  std::int64_t size = 0, tokens_in_all = 0, targets = 0, vocabulary = 0;
  std::string sum;
  Template rules;
  std::vector<std::int64_t> pair_offsets;
  std::vector<std::vector<std::int64_t>> rows_of_group;  // empty: each row is a group
  std::optional<Ids> tokens, prompt, chosen, rejected;
  std::optional<Texts> prompt_text, response_text, chosen_text, rejected_text, category, answer_text;
};

Dataset::Dataset(const std::string& path, bool verify) : columns_(std::make_unique<Columns>(path)) {
  if (!verify) return;
  columns_->verify();
  check_vocabulary(columns_->vocabulary);
}
Dataset::Dataset(Dataset&&) noexcept = default;
Dataset::~Dataset() = default;

const std::string& Dataset::path() const { return columns_->file.path(); }
DatasetKind Dataset::kind() const { return columns_->kind; }
std::int64_t Dataset::size() const { return columns_->size; }
std::int64_t Dataset::tokens() const { return columns_->tokens_in_all; }
std::int64_t Dataset::targets() const { return columns_->targets; }
std::int64_t Dataset::vocabulary() const { return columns_->vocabulary; }
const Template& Dataset::rules() const { return columns_->rules; }

std::string Dataset::tokenizer() const {
  std::string bytes = columns_->tokenizer_bytes();
  require(fnv1a(bytes) == tokenizer_fingerprint(),
          "the dataset file '{}' is damaged: its tokenizer does not have its fingerprint; copy it again or prepare it again", path());
  return bytes;
}

const std::string& Dataset::checksum() const { return columns_->sum; }

std::uint64_t Dataset::tokenizer_fingerprint() const {
  return std::stoull(columns_->file.text_attribute("/", "tokenizer_fingerprint"), nullptr, 16);
}

std::int64_t Dataset::rows(std::int64_t sample) const {
  const Columns& c = *columns_;
  c.check_index(sample, c.kind);
  if (c.kind == DatasetKind::supervised) return c.tokens->length(sample);
  if (c.kind == DatasetKind::prompts) return c.prompt->length(sample);
  std::int64_t rows = 0;
  c.for_each_pair(sample, [&](std::int64_t row, std::int64_t pair) {
    rows += 2 * c.prompt->length(row) + c.chosen->length(pair) + c.rejected->length(pair);
  });
  return rows;
}

std::int64_t Dataset::longest(std::int64_t sample) const {
  const Columns& c = *columns_;
  if (c.kind != DatasetKind::preference) return rows(sample);
  c.check_index(sample, c.kind);
  std::int64_t longest = 0;
  c.for_each_pair(sample, [&](std::int64_t row, std::int64_t pair) {
    longest = std::max(longest, c.prompt->length(row) + std::max(c.chosen->length(pair), c.rejected->length(pair)));
  });
  return longest;
}

std::int64_t Dataset::pairs(std::int64_t group) const {
  const Columns& c = *columns_;
  c.check_index(group, DatasetKind::preference);
  std::int64_t pairs = 0;
  c.for_each_pair(group, [&](std::int64_t, std::int64_t) { ++pairs; });
  return pairs;
}

SupervisedSample Dataset::supervised(std::int64_t sample) const {
  const Columns& c = *columns_;
  c.check_index(sample, DatasetKind::supervised);
  SupervisedSample out{c.tokens->row(sample), {}, c.prompt_text->text(sample), c.response_text->text(sample)};
  out.mask.resize(out.tokens.size());
  c.file.read("/mask", c.tokens->start(sample), std::span<std::uint8_t>(out.mask));
  require(std::all_of(out.mask.begin(), out.mask.end(), [](std::uint8_t m) { return m <= 1; }),
          "the mask of sample {} of '{}' must be 0 or 1 for each token; prepare the dataset again", sample, path());
  return out;
}

PreferenceGroup Dataset::preference(std::int64_t group) const {
  const Columns& c = *columns_;
  c.check_index(group, DatasetKind::preference);
  PreferenceGroup out{c.prompt->row(c.first_row(group)), c.prompt_text->text(c.first_row(group)), {}};
  c.for_each_pair(group, [&](std::int64_t, std::int64_t pair) {
    double margin = 0;
    c.file.read("/margin", pair, std::span<double>(&margin, 1));
    out.pairs.push_back({c.chosen->row(pair), c.rejected->row(pair), margin, c.chosen_text->text(pair), c.rejected_text->text(pair),
                         c.category->text(pair)});
  });
  return out;
}

PromptSample Dataset::prompt(std::int64_t sample) const {
  const Columns& c = *columns_;
  c.check_index(sample, DatasetKind::prompts);
  return {c.prompt->row(sample), c.prompt_text->text(sample), c.answer_text->text(sample)};
}

void Dataset::check_vocabulary(std::int64_t vocabulary) const {
  const Columns& c = *columns_;
  for (const auto* column : {&c.tokens, &c.prompt, &c.chosen, &c.rejected}) {
    if (!*column) continue;
    for_each_block<std::int32_t>(c.file, (*column)->name() + "/values", [&](std::int64_t first, std::span<const std::int32_t> ids) {
      for (std::size_t i = 0; i < ids.size(); ++i)
        require(
            ids[i] >= 0 && ids[i] < vocabulary,
            "the dataset '{}' does not fit a vocabulary of {}: row {} of '{}' has the token id {}; use the tokenizer and the model that "
            "belong together",
            path(), vocabulary, (*column)->row_of(first + static_cast<std::int64_t>(i)), (*column)->name(), ids[i]);
    });
  }
}

void Dataset::check_kind(DatasetKind wanted) const {
  require(kind() == wanted, "'{}' is a {} dataset, but a {} dataset is needed here: name another one, or prepare it with --kind {}", path(),
          name_of(kind()), name_of(wanted), name_of(wanted));
}

void Dataset::check_rules(const Template& rules, std::uint64_t fingerprint, std::string_view whose) const {
  require(fingerprint == tokenizer_fingerprint(),
          "the dataset '{}' was made with another tokenizer than {}, or by an older version, which had other rules for blanks and special "
          "tokens; prepare it with the same one",
          path(), whose);
  const std::string difference = this->rules().difference(rules);
  require(difference.empty(), "the dataset '{}' was made with another prompt template than {}: {}; prepare it with the same one", path(),
          whose, difference);
}

}  // namespace collimate
