#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/data/dataset.hpp"
#include "data/columns.hpp"

namespace collimate {

std::int64_t PreferenceGroup::rows() const {
  std::int64_t rows = 0;
  for (const PreferencePair& pair : pairs) rows += static_cast<std::int64_t>(2 * prompt.size() + pair.chosen.size() + pair.rejected.size());
  return rows;
}

/// The columns of all kinds; those of other kinds are empty.
struct DatasetWriter::Columns {
  using Ids = RaggedWriter<std::int32_t>;
  using Texts = RaggedWriter<std::uint8_t>;

  Columns(const std::string& path, DatasetKind kind_, const Template& rules, const Tokenizer& tokenizer, bool join_groups_)
      : kind(kind_),
        join_groups(join_groups_),
        target(path),
        file(Hdf5File::create(target.temporary())),
        vocabulary(tokenizer.vocabulary()) {
    rules.check();
    const std::string bytes = tokenizer.serialize();
    file.set_attribute("/", "format", "collimate-dataset");
    file.set_attribute("/", "kind", name_of(kind));
    file.set_attribute("/", "vocabulary", vocabulary);
    file.set_attribute("/", "tokenizer_fingerprint", checksum_text(tokenizer.fingerprint()));
    file.write_text("/template", rules.to_json());
    file.write("/tokenizer", std::span<const std::uint8_t>(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()));
    whole.add(fmt::format("{} {} {}\n{}\n", name_of(kind), vocabulary, rules.to_json(), bytes));
    if (kind == DatasetKind::supervised) {
      tokens.emplace(file, "/tokens");
      mask.emplace(file, "/mask");
      prompt_text.emplace(file, "/prompt_text");
      response_text.emplace(file, "/response_text");
      return;
    }
    prompt.emplace(file, "/prompt");
    prompt_text.emplace(file, "/prompt_text");
    if (kind == DatasetKind::prompts) {
      answer_text.emplace(file, "/answer_text");
      return;
    }
    pair_offsets.emplace(file, "/pair_offsets");
    pair_offsets->add(0);
    chosen.emplace(file, "/chosen");
    rejected.emplace(file, "/rejected");
    margin.emplace(file, "/margin");
    chosen_text.emplace(file, "/chosen_text");
    rejected_text.emplace(file, "/rejected_text");
    category.emplace(file, "/category");
  }

  void for_each(auto&& visit) {
    const auto one = [&](auto& column) {
      if (column) visit(*column);
    };
    one(tokens), one(mask), one(prompt), one(groups), one(pair_offsets), one(chosen), one(rejected), one(margin);
    one(prompt_text), one(response_text), one(chosen_text), one(rejected_text), one(category), one(answer_text);
  }
  void check_kind(DatasetKind wanted) const {
    ensure(kind == wanted, "a {} sample was given to the {} dataset '{}'", name_of(wanted), name_of(kind), target.path());
  }
  void check_ids(const std::vector<std::int32_t>& ids) const {
    for (const std::int32_t id : ids)
      require(id >= 0 && id < vocabulary, "sample {} of '{}' has the token id {}, but the vocabulary has {}", samples, target.path(), id,
              vocabulary);
  }

  /// Tells which group the row `samples` belongs to.
  void join(const PreferenceGroup& group) {
    const std::pair prompt(checksum(group.text), checksum(group.prompt.data(), group.prompt.size() * sizeof(std::int32_t)));
    const auto number = group_of_prompt.try_emplace(prompt, group_of_prompt.size()).first->second;
    rows_of_group.resize(group_of_prompt.size());
    rows_of_group[number].push_back(samples);
  }
  std::int64_t joined_samples() const { return join_groups ? static_cast<std::int64_t>(rows_of_group.size()) : samples; }
  void write_groups() {
    if (joined_samples() == samples) return;
    groups.emplace(file, "/groups");
    for (const std::vector<std::int64_t>& members : rows_of_group) groups->add(std::span<const std::int64_t>(members));
  }

  DatasetKind kind;
  bool join_groups;
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::size_t> group_of_prompt;
  std::vector<std::vector<std::int64_t>> rows_of_group;
  AtomicFile target;
  Hdf5File file;
  std::int64_t vocabulary, samples = 0, rows = 0, targets = 0;
  bool sealed = false, several_answers = false;
  Checksum whole;
  std::optional<Ids> tokens, prompt, chosen, rejected;
  std::optional<RaggedWriter<std::int64_t>> groups;
  std::optional<ColumnWriter<std::uint8_t>> mask;
  std::optional<ColumnWriter<std::int64_t>> pair_offsets;
  std::optional<ColumnWriter<double>> margin;
  std::optional<Texts> prompt_text, response_text, chosen_text, rejected_text, category, answer_text;
};

DatasetWriter::DatasetWriter(const std::string& path, DatasetKind kind, const Template& rules, const Tokenizer& tokenizer, bool join_groups)
    : columns_(std::make_unique<Columns>(path, kind, rules, tokenizer, join_groups && kind == DatasetKind::preference)) {}
DatasetWriter::DatasetWriter(DatasetWriter&&) noexcept = default;
DatasetWriter::~DatasetWriter() = default;

std::int64_t DatasetWriter::samples() const { return columns_->joined_samples(); }
std::int64_t DatasetWriter::tokens() const { return columns_->rows; }
std::int64_t DatasetWriter::targets() const { return columns_->targets; }

std::size_t DatasetWriter::buffered_bytes() const {
  std::size_t sum = 0;
  columns_->for_each([&](const auto& column) { sum += column.buffered_bytes(); });
  return sum;
}

void DatasetWriter::add(const SupervisedSample& sample) {
  Columns& c = *columns_;
  c.check_kind(DatasetKind::supervised);
  c.check_ids(sample.tokens);
  const auto learned = std::count(sample.mask.begin(), sample.mask.end(), 1);
  const auto others = std::count(sample.mask.begin(), sample.mask.end(), 0);
  ensure(sample.mask.size() == sample.tokens.size() && learned + others == static_cast<std::ptrdiff_t>(sample.mask.size()),
         "the mask of sample {} must be 0 or 1 for each token", c.samples);
  require(learned > (sample.mask.empty() ? 0 : sample.mask[0]), "sample {} of '{}' has nothing to learn behind its first token", c.samples,
          c.target.path());
  const auto answer = std::find(sample.mask.begin(), sample.mask.end(), 1);
  c.several_answers = c.several_answers || std::find(answer, sample.mask.end(), 0) != sample.mask.end();
  c.tokens->add(std::span<const std::int32_t>(sample.tokens));
  c.mask->add(std::span<const std::uint8_t>(sample.mask));
  c.prompt_text->add(std::string_view(sample.prompt));
  c.response_text->add(std::string_view(sample.response));
  ++c.samples;
  c.rows += static_cast<std::int64_t>(sample.tokens.size());
  c.targets += learned - sample.mask[0];
}

void DatasetWriter::add(const PreferenceGroup& group) {
  Columns& c = *columns_;
  c.check_kind(DatasetKind::preference);
  require(!group.pairs.empty(), "group {} of '{}' has no pair", c.samples, c.target.path());
  c.check_ids(group.prompt);
  for (const PreferencePair& pair : group.pairs) {
    c.check_ids(pair.chosen);
    c.check_ids(pair.rejected);
    require(!pair.chosen.empty() && !pair.rejected.empty(), "group {} of '{}' has an empty answer", c.samples, c.target.path());
  }
  for (const PreferencePair& pair : group.pairs) {
    c.chosen->add(std::span<const std::int32_t>(pair.chosen));
    c.rejected->add(std::span<const std::int32_t>(pair.rejected));
    c.margin->add(pair.margin);
    c.chosen_text->add(std::string_view(pair.chosen_text));
    c.rejected_text->add(std::string_view(pair.rejected_text));
    c.category->add(std::string_view(pair.category));
  }
  c.prompt->add(std::span<const std::int32_t>(group.prompt));
  c.prompt_text->add(std::string_view(group.text));
  c.pair_offsets->add(c.margin->size());
  if (c.join_groups) c.join(group);
  ++c.samples;
  c.rows += group.rows();
  c.targets += static_cast<std::int64_t>(group.pairs.size());
}

void DatasetWriter::add(const PromptSample& sample) {
  Columns& c = *columns_;
  c.check_kind(DatasetKind::prompts);
  c.check_ids(sample.tokens);
  require(!sample.tokens.empty(), "prompt {} of '{}' has no token; take it out or add a beginning-of-text token", c.samples,
          c.target.path());
  c.prompt->add(std::span<const std::int32_t>(sample.tokens));
  c.prompt_text->add(std::string_view(sample.text));
  c.answer_text->add(std::string_view(sample.answer));
  ++c.samples;
  c.rows += static_cast<std::int64_t>(sample.tokens.size());
}

void DatasetWriter::seal() {
  Columns& c = *columns_;
  if (c.sealed) return;
  require(c.samples > 0, "'{}' would hold no sample: nothing is left of the input", c.target.path());
  c.write_groups();
  c.for_each([&](auto& column) { column.finish(c.whole); });
  c.file.set_attribute("/", "version", c.several_answers ? 2 : 1);  // programs that take a mask for one answer refuse version 2
  c.file.set_attribute("/", "samples", c.samples);
  c.file.set_attribute("/", "tokens", c.rows);
  c.file.set_attribute("/", "targets", c.targets);
  c.file.set_attribute("/", "checksum", checksum_text(c.whole.value()));
  c.file.close();
  c.sealed = true;
}

void DatasetWriter::finish() {
  seal();
  columns_->target.commit();
}

}  // namespace collimate
