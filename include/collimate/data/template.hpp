#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collimate/data/formats.hpp"
#include "collimate/data/tokenizer.hpp"

namespace collimate {

/// What happens to a prompt or response with more tokens than the template allows.
enum class TooLong {
  refuse,  ///< an error naming the record
  drop,    ///< the record is left out and counted
  cut,     ///< prompts lose tokens on the left, responses on the right (and their end of text); counted
};
std::string_view name_of(TooLong rule);
TooLong too_long_named(std::string_view name);

/// A text made by a template, and which parts of it are the template's own words: what stood in a record is in none of them.
struct TemplateText {
  std::string text;
  std::vector<TextRange> own = {};  ///< ascending, apart from each other
  bool plain = false;               ///< the template has no part in it: plain text, a prompt that is used as it is
  TemplateText& add_own(std::string_view words);
  TemplateText& add_data(std::string_view words);
  TemplateText& add(const TemplateText& other);
  TemplateText& trim();  ///< without the blanks at both ends
};

/// A text without blanks at both ends: all that Unicode calls white space, as Python's str.strip() and Jinja's trim have it.
std::string_view strip(std::string_view text);

/// What a chat model does with a dialogue beyond the words in front of its turns and behind them; src/data/chat_templates.cpp has a table.
struct ChatForm {
  enum class System {
    turn,              ///< a turn of its own, wherever it stands
    in_question,       ///< the first turn's text goes into the first question, between Template::system and system_suffix
    in_last_question,  ///< or into the last one
    refused,           ///< such a model has no place for it
  };
  std::string name;  ///< of a row of the table, or "custom"; empty: no chat model, and a prompt that is no dialogue is no user's turn
  std::string human_suffix, assistant_suffix, system_suffix;  ///< behind a turn of each role, in front of Template::turn_suffix
  std::string first_system;  ///< instead of Template::system in front of a system turn that begins a dialogue; empty: no other words
  std::optional<std::string> default_system;  ///< the text of the system turn of dialogues that begin with none; nothing: no such turn
  System system_place = System::turn;
  bool cue_keeps_blanks = false;  ///< the blanks that end Template::assistant belong to the prompt, not to the response
  bool alternates = false;        ///< turns are human, assistant, human ...; anything else is refused
  bool skips_empty_system = false;
  /// Whether BOS starts a plain text and EOS ends it; in dialogues Template::add_bos and add_eos say so.
  bool text_bos = false, text_eos = false;
  /// Whose texts lose the blanks at both ends: "human", "assistant", "system"; "question": the first question with a system text in it.
  std::vector<std::string> trims = {};
  bool operator==(const ChatForm&) const = default;
  bool trims_text_of(std::string_view role) const;
};

/// How a record becomes tokens: set once by `prepare`, stored in datasets and checkpoints, compared by every stage.
struct Template {
  /// {prompt} (or {instruction}) and {input} stand for the record's fields; a part in [[ ]] is left out if a field in it is empty.
  std::string prompt = "{prompt}[[\n{input}]]\n";
  std::string response_prefix, response_suffix;  ///< around every response, learned with it
  // Before each turn of a dialogue; the last, unanswered turn is the assistant's, its trailing blanks begin the response.
  std::string human = "\n\nHuman: ", assistant = "\n\nAssistant: ", system = "\n\nSystem: ";
  std::string turn_suffix;  ///< behind each turn of a dialogue's prompt; behind the answer stands response_suffix
  bool add_bos = true;  ///< exactly one beginning-of-text token starts every sample; of a chat model's every dialogue
  bool add_eos = true;  ///< the end-of-text token is the response's last token; likewise
  std::int64_t max_prompt_tokens = 0;    ///< with BOS; 0: no limit
  std::int64_t max_response_tokens = 0;  ///< with EOS; 0: no limit
  TooLong prompt_rule = TooLong::refuse, response_rule = TooLong::refuse;
  /// A special token that stands in the template's own words (`<|im_start|>`) is that token; else it is letters, as what stands in a record
  /// always is. Set by look_for_special(); templates that older versions stored lack it.
  bool special_tokens = false;
  ChatForm chat = {};

  bool operator==(const Template&) const = default;
  /// Sets special_tokens if a special token of the tokenizer is in the words. Gives a line on those that only look like one, or "".
  std::string look_for_special(const Tokenizer& tokenizer);
  void check() const;  ///< throws on an unknown field, an unclosed bracket or a negative limit
  std::string to_json() const;
  std::string describe(const std::string& indent) const;  ///< for people: one line per setting that is not empty
  static Template from_json(const std::string& text);
  /// "" if equal, else the first difference in words: "prompt is 'a' here and 'b' there".
  std::string difference(const Template& other) const;

  /// add_bos and add_eos for such a text.
  bool starts_with_bos(bool plain) const { return plain && !chat.name.empty() ? chat.text_bos : add_bos; }
  bool ends_with_eos(bool plain) const { return plain && !chat.name.empty() ? chat.text_eos : add_eos; }
  /// The text of the prompt, and of an answer to it.
  TemplateText prompt_text(const Example& example) const;
  TemplateText response_text(const Example& example, std::string_view answer) const;

 private:
  std::vector<Turn> turns_of(const Example& example) const;
  TemplateText question(const Turn& turn, const Turn* first) const;  // the text of a user's turn, perhaps with the system turn in it
  bool is_dialogue(const Example& example) const { return !example.turns.empty() || (!chat.name.empty() && !example.complete); }
};

/// How often the limits of a template, and of its tokenizer, were met.
struct LengthCounts {
  std::int64_t dropped = 0, cut_prompts = 0, cut_responses = 0;
  std::int64_t unknown = 0;         ///< tokens that stand for what the tokenizer has no piece for
  std::int64_t prompt_had_bos = 0;  ///< prompts that begin with the template's own BOS token; it was not added again
  bool operator==(const LengthCounts&) const = default;
};

/// Tokenises prompts and responses by a template. Prompt and response are tokenised apart, then put together; decoded together they give
/// the two texts, less the template's special tokens. (A kind that puts a blank before every text shows it behind one of these.)
class TemplateEncoder {
 public:
  /// Throws if the template asks for a BOS or EOS that the tokenizer lacks, or has words of its own behind an EOS in a response.
  TemplateEncoder(const Template& rules, const Tokenizer& tokenizer);
  const Template& rules() const { return rules_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  /// [BOS] prompt. False if the record is to be dropped.
  bool prompt(const TemplateText& text, std::string_view place, std::vector<std::int32_t>& tokens, LengthCounts& counts) const;
  /// response [EOS], which continues the tokens of its prompt; an EOS that ends the response's own words is not added again. False if the
  /// record is to be dropped.
  bool response(const TemplateText& text, std::span<const std::int32_t> prompt, std::string_view place, std::vector<std::int32_t>& tokens,
                LengthCounts& counts) const;
  // The steps of prompt(), for dialogues of which several answers are learned.
  std::vector<std::int32_t> prompt_tokens(const TemplateText& text, LengthCounts& counts) const;  ///< [BOS] prompt, however long
  std::vector<std::int32_t> tokens_after(std::span<const std::int32_t> before, const TemplateText& text, LengthCounts& counts) const;
  /// with_bos: they begin with a BOS that stays. False: to be dropped.
  bool fit_prompt(std::vector<std::int32_t>& tokens, bool with_bos, std::string_view place, LengthCounts& counts) const;
  std::int64_t count_unknown(std::span<const std::int32_t> tokens) const;

 private:
  std::span<const TextRange> special_in(const TemplateText& text) const;
  Template rules_;
  const Tokenizer* tokenizer_;
};

}  // namespace collimate
