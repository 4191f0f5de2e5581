#include <cstdio>
#include <filesystem>

#include "app/command_line.hpp"
#include "collimate/app/commands.hpp"
#include "collimate/base/error.hpp"
#include "collimate/data/prepare.hpp"
#include "collimate/data/prepare_example.hpp"
#include "collimate/rlhf/saved_models.hpp"

namespace collimate {
namespace {

constexpr const char* usage =
    "collimate prepare FILES --output DATASET.h5 [OPTIONS]: turns files into a dataset, in one pass over the text (two with --heldout) and\n"
    "little memory.\n"
    "collimate prepare --example FOLDER: makes the quickstart's data and datasets.\n\n"
    "Files are JSONL, JSON arrays, tables (CSV, TSV) or plain text, gzipped or not. A record's fields say what it is:\n"
    "  prompt and response (or instruction/output, question/answer, completion), messages or conversations: supervised\n"
    "  prompt, chosen, rejected; chosen and rejected alone (whole dialogues); responses and scores, which give a pair of every two answers\n"
    "  with different scores, whose margin is the difference: preference\n"
    "  prompt alone: prompts. text: every token is learned.\n"
    "Wherever a text stands, a list of messages may stand. Columns with other names are named by --prompt-field and the like.\n"
    "A model that exists already decides over tokenizer and template: --like CHECKPOINT. Stages of one run need datasets with the same\n"
    "tokenizer and template: --like DATASET.h5 takes both from the first.";

/// What the command line says, in the words of the command line.
struct Words {
  std::vector<std::string> inputs;
  std::string output, held_out_output, like, example;
  std::string tokenizer_pattern, kind = "auto", format = "auto", file_format = "auto", text_unit = "paragraph", tokenizer = "bytes", group_pairs = "prompt";
  std::int64_t train_bpe = 0, text_window = 0, seed = 1, show = 1;
  std::string learn = "last", delimiter = "auto";
  FieldNames names;
  double held_out = 0;
  bool skip_bad = false, special_in_text = false;
};

void declare_names(OptionTable& table, FieldNames& names) {
  table.add("prompt-field", names.prompt, "the column (or JSON field) of the prompts, where it has another name than the usual ones");
  table.add("input-field", names.input, "the column of what belongs to a prompt ({input} of the template)");
  table.add("response-field", names.response, "the column of the responses");
  table.add("chosen-field", names.chosen, "the column of the better answers");
  table.add("rejected-field", names.rejected, "the column of the worse answers");
  table.add("answer-fields", names.answers, "columns with an answer each, of which the label names the best; give the option once for each");
  table.add("label-field", names.label, "the column of a label");
  table.add("label-values", names.label_values,
            "with answer-fields: for each of them the label that prefers it; without: the labels of records that are taken, others are left out");
}

void declare(OptionTable& table, Words& words) {
  table.add("input", words.inputs, "the files to read; may be given without --input");
  table.add("output", words.output, "the dataset to write", path_to_write());
  table.add("heldout", words.held_out, "share of the records that go to --heldout-output; pairs of one prompt go together",
            at_least_below(0, 1));
  table.add("heldout-output", words.held_out_output, "the dataset of the held-out records", path_to_write());
  table.add("kind", words.kind, "what the dataset is for; auto: what the records hold",
            one_of({"auto", "supervised", "preference", "prompts"}));
  table.add("format", words.format, "how the fields of a record are read; auto: by their names",
            one_of(sample_format_names()));
  table.add("learn", words.learn, "which answers of a dialogue are learned; those whose messages have \"weight\": 0 never are", one_of({"last", "all"}));
  declare_names(table, words.names);
  table.add("file-format", words.file_format, "auto: by the name's ending and the first bytes; csv: a table", one_of({"auto", "jsonl", "json", "csv", "text"}));
  table.add("delimiter", words.delimiter, "between the columns of a table: auto, tab, comma, semicolon, pipe, or a character");
  table.add("text-unit", words.text_unit, "what one record of plain text is", one_of({"file", "paragraph", "line"}));
  table.add("text-window", words.text_window, "plain text is cut into samples of at most so many tokens; 0: not", at_least(0), "tokens");
  table.add("group-pairs", words.group_pairs,
            "which pairs are learned from together: all of one prompt, those of one prompt that follow each other, or each alone",
            one_of({"prompt", "consecutive", "none"}));
  table.add("tokenizer", words.tokenizer, "'bytes', a tokenizer file, a model folder, or a dataset with the one to take");
  table.add("tokenizer-pattern", words.tokenizer_pattern, "how a tiktoken file cuts texts into words, where it does not show it; empty: it does",
            one_of({"", "r50k", "p50k", "cl100k", "o200k", "llama3", "qwen"}));
  table.add("special-in-text", words.special_in_text, "the text of a special token, such as </s>, is that token in records, too; else it is letters");
  table.add("train-bpe", words.train_bpe, "trains a byte-level BPE on the input; 0: does not", at_least(0), "tokens");
  table.add("like", words.like, "a checkpoint or dataset whose tokenizer and template are taken");
  table.add("skip-bad", words.skip_bad, "leaves bad records out and counts them; else they are errors");
  table.add("seed", words.seed, "chooses the held-out records, and the example's rows", at_least(0));
  table.add("show", words.show, "how many samples are shown at the end", at_least(0));
  table.add("example", words.example, "a folder for the quickstart's data and datasets", path_to_write());
  table.positional("input", -1);
}

/// A checkpoint's tokenizer and template.
void take_rules(PrepareOptions& options, const std::string& checkpoint) {
  require_one_checkpoint(checkpoint);
  const rlhf::SavedModels saved(checkpoint);
  const rlhf::TextRules text = saved.text_rules();
  require(text.has_tokenizer(), "the checkpoint '{}' has no tokenizer; import the model with --tokenizer", checkpoint);
  options.serialized_tokenizer = text.tokenizer;
  options.rules = text.rules;
  if (!saved.models().empty()) options.context = saved.card(saved.models().front()).config.context;
}

int make_example(const OptionTable& table, const Words& words) {
  for (const char* name : {"input", "output", "heldout", "heldout-output", "like", "tokenizer"})
    require(!table.given(name), "command line: --example makes files of its own; leave --{} out", name);
  const std::int64_t vocabulary = table.given("train-bpe") ? words.train_bpe : 735;
  const std::string report = prepare_example(words.example, vocabulary, static_cast<std::uint64_t>(words.seed));
  std::fputs(report.c_str(), stdout);
  return 0;
}

}  // namespace

int prepare_command(const std::vector<std::string>& arguments) {
  Words words;
  TemplateOptions text((Template()));
  OptionTable table;
  declare(table, words);
  text.declare(table);
  if (!read_command_line(table, usage, arguments)) return 0;
  if (!words.example.empty()) return make_example(table, words);
  require_option(table, "input");
  require_option(table, "output");
  for (const char* name : {"tokenizer", "train-bpe"})
    require(words.like.empty() || !table.given(name), "command line: --like takes the tokenizer of '{}'; leave --{} out", words.like, name);
  require(words.like.empty() || !text.given(table),
          "command line: --like takes the template of '{}'; leave the options of the template out", words.like);

  PrepareOptions options;
  options.inputs = words.inputs;
  options.reading.format = file_format_named(words.file_format);
  options.reading.text_unit = text_unit_named(words.text_unit);
  options.reading.delimiter = delimiter_named(words.delimiter);
  options.reading.skip_bad = words.skip_bad;
  options.format = sample_format_named(words.format);
  if (words.kind != "auto") options.kind = dataset_kind_named(words.kind);
  options.learn = words.learn == "all" ? Learn::all : Learn::last;
  options.names = words.names;
  options.rules = text.rules();
  options.tokenizer = words.tokenizer;
  options.tokenizer_pattern = words.tokenizer_pattern;
  options.bos_given = table.given("add-bos");
  options.special_in_text = words.special_in_text;
  options.train_bpe = words.train_bpe;
  if (std::filesystem::is_directory(words.like)) take_rules(options, words.like);
  else options.like = words.like;
  options.text_window = words.text_window;
  options.pair_groups = pair_groups_named(words.group_pairs);
  options.output = words.output;
  options.held_out_fraction = words.held_out;
  options.held_out_output = words.held_out_output;
  options.seed = static_cast<std::uint64_t>(words.seed);
  std::string report = prepare(options).text();
  report += describe(Dataset(words.output, false), words.show);
  print_text(report);
  if (!words.held_out_output.empty()) fmt::print("{}: the held-out part\n", words.held_out_output);
  return 0;
}

}  // namespace collimate
