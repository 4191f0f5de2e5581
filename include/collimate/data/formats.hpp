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

/// How the fields of a record are to be read.
enum class SampleFormat {
  automatic,            ///< by the names of the fields
  alpaca,               ///< instruction, input, output
  prompt_response,      ///< prompt and response (or question and answer, or completion)
  preference,           ///< prompt, chosen, rejected, perhaps margin and kind
  hh,                   ///< chosen and rejected: two dialogues "\n\nHuman: ...\n\nAssistant: ..." that differ in the last answer
  dialogue,             ///< conversations (ShareGPT) or messages: a list of turns; the last answer is the response
  dialogue_preference,  ///< conversations, chosen, rejected: each of the latter one message
  prompts,              ///< prompt, instruction or question alone, perhaps with a reference answer
  text,                 ///< text alone: every token is a target
};
std::string_view name_of(SampleFormat format);
SampleFormat sample_format_named(std::string_view name);  ///< auto, alpaca, prompt-response, preference, hh, dialogue, ...

/// A record in the project's own terms, before the template and the tokenizer.
struct Example {
  std::string prompt, input;            ///< what the template's {prompt} and {input} stand for
  std::vector<Turn> turns;              ///< instead of prompt: a dialogue that ends before the answer
  bool complete = false;                ///< the prompt is used as it is (hh-rlhf dialogues); the template's part is not applied
  bool is_text = false;                 ///< plain text: `response` is the whole, the template is not applied
  std::optional<std::string> response;  ///< the answer to learn
  std::optional<std::string> chosen, rejected;
  double margin = 0;
  std::string category;                 ///< the record's own label ("kind"), for reports
  std::optional<std::string> answer;    ///< reference for scorers that compare
  std::string place;                    ///< file and line
};

/// Which format a record's fields show. Throws, naming the fields, where none fits.
SampleFormat detect_format(const Record& record);
/// The name of a response's field that is null in the record; empty if there is none.
std::string_view null_response(const Record& record);
/// Reads one record. Throws an input error that names file, line and field.
Example read_example(const Record& record, SampleFormat format);

/// The default kind of a format: what it holds, read literally.
DatasetKind kind_of(SampleFormat format);
/// Turns what a record holds into what a kind of dataset needs: the chosen answer becomes the response of a supervised dataset,
/// a response or a plain text the reference answer or the text of a prompt. Throws where something is missing.
Example as_kind(Example example, DatasetKind kind);

}  // namespace collimate
