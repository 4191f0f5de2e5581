#include "collimate/data/prepare.hpp"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "collimate/base/checksum.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/base/utf8.hpp"
#include "collimate/data/model_files.hpp"
#include "collimate/data/order.hpp"
#include "data/sample_maker.hpp"
#include "data/special_texts.hpp"

namespace collimate {
namespace {

constexpr std::size_t most_complaints = 5;
constexpr std::int64_t long_text = 32768;  // tokens: more than most models take
constexpr std::size_t most_unused = 100;  // fields; of records whose fields have a name each

constexpr std::pair<std::string_view, PairGroups> pair_groups_names[] = {
    {"prompt", PairGroups::prompt}, {"consecutive", PairGroups::consecutive}, {"none", PairGroups::none}};

/// Names of the special tokens of tokenizers that are made here.
SpecialNames own_special() { return {.all = {"<|bos|>", "<|endoftext|>"}, .bos = "<|bos|>", .eos = "<|endoftext|>", .pad = ""}; }

/// Streams the examples of all inputs; skips and counts bad ones where that is allowed.
class ExampleSource {
 public:
  /// `chat`: of the template that the examples are for.
  ExampleSource(const PrepareOptions& options, ChatForm chat) : options_(options), chat_(std::move(chat)) {
    for (const std::string& path : options.inputs) readable(path);
  }

  /// The kind asked for, or what the first good record shows.
  DatasetKind kind() {
    if (options_.kind) return *options_.kind;
    if (options_.format != SampleFormat::automatic) return kind_of(options_.format);
    SampleFormat format = SampleFormat::automatic;
    for (RecordReader reader(options_.inputs.front(), options_.reading); auto record = reader.next();)
      if (guarded([&] { format = format_shown(with_usual_names(*record, options_.names)); })) return kind_of(format);
    fail("no record of '{}' shows what it is; the first: {}", options_.inputs.front(), complaints.front());
  }

  /// Calls visit(group) with the examples of each record, or of consecutive preference records that form one group. An input error
  /// that `visit` throws stops the stream; use `guarded` for those of a single record.
  void for_each_group(DatasetKind kind, const std::function<void(std::vector<Example>&)>& visit) {
    records = bad = hh_turns = 0;
    complaints.clear();
    unused.clear();
    left_out.clear();
    std::vector<Example> group;
    const bool grouped = kind == DatasetKind::preference && options_.pair_groups != PairGroups::none;
    for (const std::string& path : options_.inputs) {
      RecordReader reader(path, options_.reading);
      SampleFormat format = options_.format;
      const std::int64_t bad_before = bad;
      while (auto record = reader.next()) {
        std::vector<Example> read;
        guarded([&] { read = examples_of(std::move(*record), kind, format); });
        for (Example& example : read) {
          const bool same = grouped && !group.empty() && same_prompt(group.back(), example);
          if (!group.empty() && !same) {
            visit(group);
            group.clear();
          }
          group.push_back(std::move(example));
        }
      }
      records += reader.records();
      bad += reader.bad();
      for (const std::string& complaint : reader.complaints()) complain(complaint);
      require_mostly_good(path, reader.records() + reader.bad(), bad - bad_before);
    }
    if (!group.empty()) visit(group);
  }

  /// Runs work on one record; its input error is counted instead of thrown where bad records may be skipped.
  bool guarded(const std::function<void()>& work) {
    try {
      work();
      return true;
    } catch (const Error& error) {
      if (!options_.reading.skip_bad || error.code() != ExitCode::input_error) throw;
      ++bad;
      complain(error.what());
      return false;
    }
  }

  std::int64_t records = 0, bad = 0, hh_turns = 0;  // hh_turns: texts of hh-rlhf that became turns
  std::vector<std::string> complaints;
  std::map<std::string, std::int64_t> unused, left_out;

 private:
  /// The examples of a record. `format` is what the file's first good record showed, or automatic.
  std::vector<Example> examples_of(Record read, DatasetKind kind, SampleFormat& format) {
    const Record record = with_usual_names(std::move(read), options_.names);
    const bool shown = format == SampleFormat::automatic;
    const SampleFormat found = shown ? detect_format(record) : format;
    require(
        options_.kind || kind_of(found) == kind,
        "{}: the record is for a {} dataset, but the first input is for a {} one; prepare them apart, or say with --kind what they "
        "are to become",
        record.place(), name_of(kind_of(found)), name_of(kind));
    require(options_.kind || found != SampleFormat::oasst,
            "{}: a tree of OpenAssistant holds dialogues, ranked answers and prompts; say which with --kind supervised, preference or prompts",
            record.place());
    Reading reading = read_examples(record, found, {options_.names, options_.learn, kind, &chat_});
    if (found == SampleFormat::prompts && shown && !options_.kind) require_no_answers(record);
    for (Example& example : reading.examples) example = as_kind(std::move(example), kind);
    if (found == SampleFormat::hh && !chat_.name.empty()) hh_turns += std::ssize(reading.examples);
    format = found;  // a bad first record does not decide
    if (!reading.left_out.empty()) {
      ++left_out[reading.left_out];
      return {};
    }
    for (const std::string& name : record.unused())
      if (unused.contains(name) || unused.size() < most_unused) ++unused[name];
    return std::move(reading.examples);
  }

  /// Where most records are bad the file is not what it is taken for.
  void require_mostly_good(const std::string& path, std::int64_t all, std::int64_t bad_ones) const {
    require(2 * bad_ones <= all, "{} of the {} records of '{}' are bad, so it is not what it is taken for; the first: {}", bad_ones, all, path,
            complaints.empty() ? "" : complaints.front());
  }
  /// What a first record shows; one whose response is null does not show that these are prompts alone.
  static SampleFormat format_shown(const Record& record) {
    const SampleFormat format = detect_format(record);
    const std::string_view null = null_response(record);
    require(format != SampleFormat::prompts || null.empty(),
            "{}: the field '{}' is null; give it a value, take the record out, or say --kind prompts if these are prompts alone", record.place(),
            null);
    return format;
  }
  static void readable(const std::string& path) {
    std::error_code error;
    require(std::filesystem::is_regular_file(path, error), "the input '{}' is not a file; check the path", path);
  }
  static bool same_prompt(const Example& a, const Example& b) { return a.prompt == b.prompt && a.input == b.input && a.system == b.system && a.turns == b.turns; }
  void complain(const std::string& sentence) {
    if (complaints.size() < most_complaints) complaints.push_back(sentence);
  }
  const PrepareOptions& options_;
  const ChatForm chat_;
};

/// Every answer that a record holds.
std::vector<std::string_view> answers_of(const Example& example) {
  std::vector<std::string_view> answers;
  for (const auto* answer : {&example.response, &example.chosen, &example.rejected})
    if (*answer) answers.push_back(**answer);
  return answers;
}

std::unique_ptr<Tokenizer> train(const PrepareOptions& options, ExampleSource& source, DatasetKind kind) {
  require(options.train_bpe > 256 + static_cast<std::int64_t>(own_special().all.size()),
          "a BPE vocabulary of {} is too small: it starts with 256 bytes and {} special tokens", options.train_bpe,
          own_special().all.size());
  BpeTrainer trainer(own_special());
  source.for_each_group(kind, [&](std::vector<Example>& group) {
    for (const Example& example : group) {
      trainer.add(options.rules.prompt_text(example).text);
      for (const std::string_view answer : answers_of(example)) trainer.add(options.rules.response_text(example, answer).text);
    }
  });
  return std::move(trainer.train(options.train_bpe).tokenizer);
}

bool is_dataset(const std::string& path) {
  const std::filesystem::path name(path);
  return std::filesystem::is_regular_file(name) && (name.extension() == ".h5" || name.extension() == ".hdf5");
}

std::unique_ptr<Tokenizer> tokenizer_of(const PrepareOptions& options, ExampleSource& source, DatasetKind kind) {
  if (!options.like.empty()) return deserialize_tokenizer(Dataset(options.like, false).tokenizer());
  if (!options.serialized_tokenizer.empty()) return deserialize_tokenizer(options.serialized_tokenizer);
  if (options.train_bpe > 0) return train(options, source, kind);
  if (options.tokenizer == "bytes") return byte_tokenizer(own_special());
  if (is_dataset(options.tokenizer)) return deserialize_tokenizer(Dataset(options.tokenizer, false).tokenizer());
  return load_tokenizer(options.tokenizer, options.tokenizer_pattern);
}

/// What stands beside the tokenizer, where it comes from a file or folder of another program.
std::optional<ModelFiles> files_beside(const PrepareOptions& options) {
  const bool own = !options.like.empty() || !options.serialized_tokenizer.empty() || options.train_bpe > 0 || options.tokenizer == "bytes";
  if (own || is_dataset(options.tokenizer)) return std::nullopt;
  return read_model_files(options.tokenizer);
}

void check(const PrepareOptions& options) {
  options.names.check();
  require(!options.inputs.empty(), "no input file is given");
  require(!options.output.empty(), "no output file is given");
  require(options.like.empty() || options.train_bpe == 0, "a tokenizer is either taken from '{}' or trained, not both", options.like);
  require(options.text_window == 0 || options.text_window > 1, "a text window of {} tokens is too short: it needs 2 or more, or 0 for none",
          options.text_window);
  const bool held_out = !options.held_out_output.empty();
  require((options.held_out_fraction > 0) == held_out, "a held-out part needs both a fraction above 0 and an output file");
  require(options.held_out_fraction >= 0 && options.held_out_fraction < 1, "the held-out fraction {} must be at least 0 and below 1",
          options.held_out_fraction);
  const auto same_file = [](const std::string& a, const std::string& b) {
    std::error_code error;
    return a == b || std::filesystem::equivalent(a, b, error);
  };
  for (const std::string& input : options.inputs)
    require(!same_file(input, options.output) && !same_file(input, options.held_out_output),
            "'{}' is an input and an output; name another output", input);
  require(!held_out || !same_file(options.output, options.held_out_output), "'{}' is named for both outputs", options.output);
}

/// Tokens that a plain-text sample may have: of the model, else of the template, else of most models.
std::int64_t text_limit(const PrepareOptions& options, const Template& rules) {
  if (options.context > 0) return options.context;
  const bool limited = rules.max_prompt_tokens > 0 && rules.max_response_tokens > 0;
  return limited ? rules.max_prompt_tokens + rules.max_response_tokens : long_text;
}

/// Which examples go to the held-out part: a share of all of them, of pairs a share of the prompts.
class HeldOut {
 public:
  /// Reads all examples once; asks for none where nothing is held out.
  HeldOut(const PrepareOptions& options, const Template& rules, ExampleSource& source, DatasetKind kind) : rules_(rules), kind_(kind) {
    if (options.held_out_fraction == 0) return;
    std::vector<std::int32_t> records;  // of each number
    source.for_each_group(kind, [&](std::vector<Example>& group) {
      const auto n = static_cast<std::size_t>(number(group.front()));
      if (n >= records.size()) records.resize(n + 1);
      records[n] += static_cast<std::int32_t>(group.size());
    });
    out_.resize(records.size());
    for (const std::int64_t held : split_held_out(records, options.held_out_fraction, options.seed).held_out) out_[held] = true;
    read_ = 0;
  }
  /// Of the next example, in the order of the input.
  bool next(const Example& example) { return !out_.empty() && out_[static_cast<std::size_t>(number(example))]; }

 private:
  std::int64_t number(const Example& example) {
    if (kind_ != DatasetKind::preference) return read_++;
    const auto next = static_cast<std::int64_t>(number_of_prompt_.size());
    return number_of_prompt_.try_emplace(checksum(rules_.prompt_text(example).text), next).first->second;
  }
  const Template& rules_;
  DatasetKind kind_;
  std::int64_t read_ = 0;
  std::unordered_map<std::uint64_t, std::int64_t> number_of_prompt_;
  std::vector<bool> out_;
};

/// Says where all samples of an output have gone, where none is left.
void require_samples(const DatasetWriter& out, const std::string& path, const PrepareReport& report, bool held_out) {
  if (out.samples() > 0) return;
  std::vector<std::string> remedies;
  if (report.bad > 0) remedies.push_back("correct the bad ones");
  if (report.lengths.dropped > 0) remedies.push_back("raise --max-prompt-tokens and --max-response-tokens where the template is made");
  if (held_out) remedies.push_back("hold out another share");
  std::string others;
  for (const auto& [why, count] : report.left_out) others += fmt::format(", {} were left out ({})", count, why);
  fail("nothing is left for '{}': {} records are bad{}{}, and {} were dropped (too long, or a pair identical after truncation); {}", path, report.bad,
       report.complaints.empty() ? "" : fmt::format(" (the first: {})", report.complaints.front()), others, report.lengths.dropped,
       remedies.empty() ? "give more records" : join(remedies, ", or "));
}

}  // namespace

PairGroups pair_groups_named(std::string_view name) {
  for (const auto& [word, value] : pair_groups_names)
    if (word == name) return value;
  fail("'{}' does not say which pairs form a group; it is one of prompt, consecutive, none", name);
}

PrepareReport prepare(const PrepareOptions& options) {
  check(options);
  PrepareReport report;
  report.rules = options.like.empty() ? options.rules : Dataset(options.like, false).rules();
  ExampleSource source(options, report.rules.chat);
  report.kind = source.kind();
  const auto tokenizer = tokenizer_of(options, source, report.kind);
  report.notes = tokenizer->notes();
  if (options.like.empty() && options.serialized_tokenizer.empty()) report.letters = report.rules.look_for_special(*tokenizer);
  report.rules.add_bos = report.rules.add_bos && tokenizer->bos();
  if (const auto files = files_beside(options)) {
    if (!options.bos_given) {
      report.rules.add_bos = report.rules.add_bos && adds_bos(*tokenizer, *files);
      report.letters += bos_told(*tokenizer, *files, report.rules.add_bos);
    }
  }
  report.rules.add_eos = report.rules.add_eos && tokenizer->eos();
  report.text_limit = text_limit(options, report.rules);
  report.vocabulary = tokenizer->vocabulary();
  report.wanted_vocabulary = options.train_bpe;
  report.tokenizer_fingerprint = tokenizer->fingerprint();
  Template rules = report.rules;
  rules.special_tokens = rules.special_tokens || options.special_in_text;
  const TemplateEncoder encoder(rules, *tokenizer);
  SpecialTexts special(*tokenizer, options.special_in_text);
  const SampleMaker maker(encoder, special, options.text_window);
  HeldOut held_out(options, report.rules, source, report.kind);
  const bool join_groups = options.pair_groups == PairGroups::prompt;
  DatasetWriter train(options.output, report.kind, report.rules, *tokenizer, join_groups);
  std::optional<DatasetWriter> rest;
  if (!options.held_out_output.empty()) rest.emplace(options.held_out_output, report.kind, report.rules, *tokenizer, join_groups);

  source.for_each_group(report.kind, [&](std::vector<Example>& group) {
    DatasetWriter& out = held_out.next(group.front()) ? *rest : train;
    std::vector<SupervisedSample> samples;
    PreferenceGroup pairs;
    PromptSample prompt;
    source.guarded([&] {
      if (report.kind == DatasetKind::supervised) samples = maker.supervised(group.front(), report.lengths);
      if (report.kind == DatasetKind::preference) pairs = maker.preference(group, report.lengths);
      if (report.kind == DatasetKind::prompts) prompt = maker.prompt(group.front(), report.lengths);
    });
    for (const SupervisedSample& sample : samples) {
      if (group.front().is_text) report.count_text(std::ssize(sample.tokens));
      out.add(sample);
    }
    if (!pairs.pairs.empty()) out.add(pairs);
    if (!prompt.tokens.empty()) out.add(prompt);
  });
  report.special = special.told();
  report.records = source.records;
  report.bad = source.bad;
  report.complaints = source.complaints;
  report.unused = source.unused;
  report.left_out = source.left_out;
  if (source.hh_turns > 0)
    report.notes.push_back(
        fmt::format("{} dialogues of hh-rlhf were read as turns for the chat template '{}'", source.hh_turns, report.rules.chat.name));
  require_samples(train, options.output, report, rest.has_value());
  if (rest) require_samples(*rest, options.held_out_output, report, true);
  const auto counts = [](const DatasetWriter& out) { return std::tuple(out.samples(), out.tokens(), out.targets()); };
  std::tie(report.samples, report.tokens, report.targets) = counts(train);
  if (rest) {
    std::tie(report.held_out_samples, report.held_out_tokens, report.held_out_targets) = counts(*rest);
    rest->seal();
  }
  train.seal();
  if (rest) rest->finish();
  train.finish();
  return report;
}

void PrepareReport::count_text(std::int64_t tokens) {
  long_texts += tokens > text_limit;
  longest_text = std::max(longest_text, tokens);
}

std::string PrepareReport::vocabulary_text() const {
  if (vocabulary >= wanted_vocabulary) return "";
  return fmt::format("the trained tokenizer has {} tokens instead of {}: there are no more pairs to merge in the text\n", vocabulary,
                     wanted_vocabulary);
}

std::string PrepareReport::text() const {
  const std::string_view unit = kind == DatasetKind::preference ? "pairs" : "learned tokens";
  std::string out = fmt::format("{} read: {} skipped as bad, {} dropped (too long, or a pair identical after truncation), {} and {} truncated\n",
                                counted(records, "record"), bad, lengths.dropped, counted(lengths.cut_prompts, "prompt"),
                                counted(lengths.cut_responses, "response"));
  for (const std::string& complaint : complaints) out += fmt::format("  skipped: {}\n", complaint);
  for (const auto& [why, count] : left_out) out += fmt::format("{} left out: {}\n", counted(count, "record"), why);
  std::vector<std::string> names;
  for (const auto& [name, count] : unused) names.push_back(fmt::format("{} ({})", name, names.empty() ? counted(count, "record") : fmt::format("{}", count)));
  if (!names.empty()) out += fmt::format("fields that the format does not use: {}\n", join(names, ", "));
  for (const std::string& note : notes) out += note + "\n";
  if (long_texts)
    out += fmt::format(
        "warning: {} of the plain-text samples have more than {} tokens (the longest {}) and need a model with a longer context. "
        "Cut them with --text-window, or choose with --text-unit what one record is\n",
        long_texts, text_limit, longest_text);
  out += letters;
  if (lengths.prompt_had_bos) out += fmt::format("{} already began with BOS; it was not added again\n", counted(lengths.prompt_had_bos, "prompt"));
  out += special;
  if (lengths.unknown)
    out += fmt::format("{} for characters that the tokenizer does not know: these are lost\n", counted(lengths.unknown, "unknown token"));
  const std::string_view noun = kind == DatasetKind::prompts ? "prompt" : kind == DatasetKind::preference ? "prompt group" : "sample";
  out += fmt::format("{}: {}, {}", name_of(kind), counted(samples, noun), counted(tokens, "token"));
  if (kind != DatasetKind::prompts) out += fmt::format(", {} {}", targets, unit);
  if (held_out_samples) out += fmt::format("\nheld out: {}, {}", counted(held_out_samples, noun), counted(held_out_tokens, "token"));
  if (held_out_samples && kind != DatasetKind::prompts) out += fmt::format(", {} {}", held_out_targets, unit);
  const auto added = [&](bool plain) {
    const auto word = [](bool yes) { return yes ? "added" : "not added"; };
    return fmt::format("BOS {}, EOS {}", word(rules.starts_with_bos(plain)), word(rules.ends_with_eos(plain)));
  };
  out += fmt::format("\ntokenizer: {} tokens, fingerprint {:016x}; {}", vocabulary, tokenizer_fingerprint, added(false));
  out += added(true) == added(false) ? "\n" : fmt::format("; in plain text {}\n", added(true));
  return out + vocabulary_text();
}

std::string describe(const Dataset& dataset, std::int64_t samples) {
  std::string out =
      fmt::format("{}: {} dataset, {}, {}", dataset.path(), name_of(dataset.kind()), counted(dataset.size(), "sample"), counted(dataset.tokens(), "token"));
  if (dataset.kind() == DatasetKind::supervised) out += fmt::format(", {} learned", dataset.targets());
  if (dataset.kind() == DatasetKind::preference) out += fmt::format(", {} pairs", dataset.targets());
  out += fmt::format("\n  checksum {}\n  tokenizer {:016x}, vocabulary {}\n{}", dataset.checksum(),
                     dataset.tokenizer_fingerprint(), dataset.vocabulary(), dataset.rules().describe("  "));
  const auto show = [&](std::string_view name, std::string_view text) {
    constexpr std::size_t most = 400;  // bytes
    out += fmt::format("    {:<10}{:?}{}\n", name, as_utf8(text.substr(0, most)), text.size() > most ? " ..." : "");
  };
  for (std::int64_t i = 0; i < std::min(samples, dataset.size()); ++i) {
    out += fmt::format("  sample {}, {}\n", i, counted(dataset.rows(i), "token"));
    if (dataset.kind() == DatasetKind::supervised) {
      const SupervisedSample sample = dataset.supervised(i);
      show("prompt", sample.prompt);
      show("response", sample.response);
    } else if (dataset.kind() == DatasetKind::prompts) {
      const PromptSample sample = dataset.prompt(i);
      show("prompt", sample.text);
      if (!sample.answer.empty()) show("answer", sample.answer);
    } else {
      const PreferenceGroup group = dataset.preference(i);
      show("prompt", group.text);
      for (const PreferencePair& pair : group.pairs) {
        show("chosen", pair.chosen_text);
        show("rejected", pair.rejected_text);
      }
    }
  }
  return out;
}

}  // namespace collimate
