#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "collimate/data/records.hpp"

namespace collimate {

/// What a dataset is for.
enum class DatasetKind { supervised, preference, prompts };
std::string_view name_of(DatasetKind kind);
DatasetKind dataset_kind_named(std::string_view name);

/// How the fields of a record are to be read. Wherever a text stands, a list of messages may stand.
enum class SampleFormat {
  automatic,            ///< by the names of the fields
  alpaca,               ///< instruction, input, output
  prompt_response,      ///< prompt and response (or question and answer, or completion)
  preference,           ///< prompt, chosen, rejected, perhaps margin and kind; or chosen and rejected, whole dialogues of messages
  hh,                   ///< chosen and rejected: two dialogues "\n\nHuman: ...\n\nAssistant: ..." that differ in the last answer; they
                        ///< stay text, or become turns where the template is a chat template
  dialogue,             ///< conversations (ShareGPT) or messages: a list of turns; the last answer is the response
  dialogue_preference,  ///< conversations or messages, chosen, rejected: the dialogue and two answers to it
  ranking,              ///< a prompt and several answers with scores or ranks
  prompts,              ///< prompt, instruction or question alone, perhaps with a reference answer
  text,                 ///< text alone: every token is a target
  oasst,                ///< a tree of OpenAssistant: prompt with replies, which have replies
};
SampleFormat sample_format_named(std::string_view name);  ///< auto, alpaca, prompt-response, preference, hh, dialogue, ...
std::vector<std::string> sample_format_names();

/// A record in the project's own terms, before the template and the tokenizer.
struct Example {
  std::string prompt, input;            ///< what the template's {prompt} and {input} stand for
  std::string system = {};              ///< beside prompt: the system turn before it, for chat templates; empty: none
  std::vector<Turn> turns;              ///< instead of prompt: a dialogue that ends before the answer. `learned` stands only where all answers
                                        ///< are learned, or are not, as it says
  bool complete = false;                ///< the prompt is used as it is (hh-rlhf dialogues); the template's part is not applied
  bool is_text = false;                 ///< plain text: `response` is the whole, the template is not applied
  std::optional<std::string> response;  ///< the answer to learn
  std::optional<std::string> chosen, rejected;
  double margin = 0;
  std::string category;                 ///< the record's own label ("kind"), for reports
  std::optional<std::string> answer;    ///< reference for scorers that compare
  std::string place;                    ///< file and line
};

/// What columns a file has for what a record says, where they have names of their own; empty: the usual names.
struct FieldNames {
  std::string prompt = {}, input = {}, response = {}, chosen = {}, rejected = {};
  std::vector<std::string> answers = {};  ///< columns with an answer each, of which the label names the best
  std::string label = {};
  /// With `answers`: for each the label that prefers it. Without: the labels of records that are taken; others are left out.
  std::vector<std::string> label_values = {};
  void check() const;
};

struct ChatForm;  // of template.hpp
enum class Learn { last, all };  ///< which answers of a dialogue are learned

struct ReadRules {
  FieldNames names = {};
  Learn learn = Learn::last;
  std::optional<DatasetKind> kind = {};  ///< what is made of the record; unset: what its format holds
  const ChatForm* chat = nullptr;        ///< of the template; with a chat template hh-rlhf's dialogues become turns
};

/// What is in a record: several pairs of one prompt, one example, or none, and then why.
struct Reading {
  std::vector<Example> examples;
  std::string left_out;
};

/// The record with the usual names for the columns that the user named.
Record with_usual_names(Record record, const FieldNames& names);
/// Which format a record's fields show. Throws, naming the fields, where none fits.
SampleFormat detect_format(const Record& record);
/// Throws where a record that shows a prompt alone has fields that look like answers or their labels.
void require_no_answers(const Record& record);
/// The name of a response's field that is null in the record; empty if there is none.
std::string_view null_response(const Record& record);
/// Reads one record whose columns have the usual names. Throws an input error that names file, line and field.
Reading read_examples(const Record& record, SampleFormat format, const ReadRules& rules = {});

/// The default kind of a format: what it holds, read literally.
DatasetKind kind_of(SampleFormat format);
/// Turns what a record holds into what a kind of dataset needs: the chosen answer becomes the response of a supervised dataset,
/// a response or a plain text the reference answer or the text of a prompt. Throws where something is missing.
Example as_kind(Example example, DatasetKind kind);

}  // namespace collimate
