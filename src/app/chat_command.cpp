#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>

#include "app/command_line.hpp"
#include "app/generator.hpp"
#include "collimate/app/commands.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/base/threads.hpp"
#include "collimate/base/utf8.hpp"
#include "collimate/kernels/head.hpp"
#include "collimate/kernels/rows.hpp"

namespace collimate {
namespace {

constexpr const char* usage =
    "collimate chat --checkpoint CHECKPOINT [OPTIONS]: a dialogue with a model that has a chat template. Each line of standard input is a\n"
    "question; the answer is printed as it comes, then a line end. /reset begins a new dialogue, /system TEXT one with this system message\n"
    "(alone: without one), /quit or the end of the input ends it; a question that begins with / is written //. When dialogue and answer do\n"
    "not fit into --context any more, the oldest question and its answer are left out, with a line on standard error.";

struct Words : GenerateWords {
  Words() { max_new = 512, temperature = 0.7; }
  std::int64_t context = 4096;
};

void declare(OptionTable& table, Words& words) {
  declare_model(table, words);
  table.add("system", words.system, "the system message; where it is not given, the chat template's own, if it has one");
  table.add("max-new", words.max_new, "most tokens of an answer", at_least(1), "tokens");
  declare_drawing(table, words);
  table.add("context", words.context, "most tokens of a dialogue with its answer; at most the model's context, and memory grows with it",
            at_least(2), "tokens");
  table.words_are_for("checkpoint");
}

void tell(const std::string& sentence) {
  std::fflush(stdout);
  fmt::print(stderr, "[{}]\n", sentence);
}

/// A dialogue and the model that answers.
class Chat {
 public:
  Chat(const Words& words, const rlhf::SavedModels& saved, const std::string& model, std::int64_t capacity, std::optional<std::string> system)
      : tokenizer_(saved.text_rules().make_tokenizer()),
        encoder_(without_limits(saved.text_rules().rules), *tokenizer_),
        capacity_(capacity),
        max_new_(std::min(words.max_new, capacity - 1)),
        system_(std::move(system)),
        generator_(saved, model, {.rows = kernels::padded_rows(capacity), .most_grains = 0, .slots = 1, .capacity = capacity}, words.memory.caps()) {
    how_.sampling = {words.temperature, words.top_k, words.top_p};
    how_.key = RandomKey(static_cast<std::uint64_t>(words.seed), Purpose::sampling);
    how_.stop = saved.text_rules().stops(tokenizer_.get());
    encode();  // a system message that the template refuses, before the first question
  }

  /// Does what a line says; false: it ends the dialogue.
  bool take(std::string line) {
    const std::string_view words = trim(line);
    if (words.empty()) return true;
    if (words == "/quit") return false;
    if (words == "/reset") {
      turns_.clear();
    } else if (words == "/system" || words.starts_with("/system ")) {
      set_system(std::string(trim(words.substr(7))));
    } else if (words.starts_with('/') && !words.starts_with("//")) {
      tell(fmt::format("unknown command '{}'; there are /reset, /system TEXT, /quit; write // for a question that begins with /", as_utf8(words)));
    } else {
      answer(words.starts_with("//") ? std::string(words.substr(1)) : std::move(line));
    }
    return true;
  }

 private:
  static Template without_limits(Template rules) {
    rules.max_prompt_tokens = rules.max_response_tokens = 0;
    return rules;
  }

  void set_system(std::string text) {
    const std::optional<std::string> before = system_;
    system_ = text.empty() ? std::nullopt : std::optional(std::move(text));
    turns_.clear();
    try {
      encode();
    } catch (const Error& error) {
      system_ = before;
      tell(error.what());
    }
  }

  /// The dialogue's tokens, up to where the answer begins.
  std::vector<std::int32_t> encode() const {
    Example example;
    if (system_) example.turns.push_back({"system", *system_});
    example.turns.insert(example.turns.end(), turns_.begin(), turns_.end());
    if (turns_.empty()) example.turns.push_back({"human", ""});
    std::vector<std::int32_t> tokens;
    LengthCounts counts;
    encoder_.prompt(encoder_.rules().prompt_text(example), "the dialogue", tokens, counts);
    return tokens;
  }

  void answer(std::string question) {
    turns_.push_back({"human", std::move(question)});
    std::vector<std::int32_t> tokens = encode();
    const std::int64_t wanted = std::max<std::int64_t>(1, std::min(max_new_, capacity_ / 4));  // room for an answer of some length
    std::int64_t left_out = 0;
    for (; turns_.size() > 2 && std::ssize(tokens) + wanted > capacity_; ++left_out) {
      turns_.erase(turns_.begin(), turns_.begin() + 2);
      tokens = encode();
    }
    if (left_out > 0)
      tell(fmt::format("the dialogue is longer than {} tokens: its oldest {} are left out", capacity_,
                       left_out == 1 ? "question and answer" : fmt::format("{} questions and answers", left_out)));
    if (std::ssize(tokens) >= capacity_) {
      turns_.pop_back();
      tell(fmt::format("the question has {} tokens with what its template puts around it, and --context is {}: it is left out",
                       tokens.size(), capacity_));
      return;
    }
    turns_.push_back({"assistant", stream(tokens)});
  }

  /// Draws an answer and prints it as it comes, in whole characters. Gives its text.
  std::string stream(const std::vector<std::int32_t>& tokens) {
    std::vector<std::int32_t> drawn;
    std::size_t printed = 0;
    const auto print_to = [&](std::string_view text) {
      const std::string more = as_utf8(text.substr(printed));
      std::fwrite(more.data(), 1, more.size(), stdout);
      std::fflush(stdout);
      printed = text.size();
    };
    how_.max_new = std::min(max_new_, capacity_ - std::ssize(tokens));
    how_.each = [&](std::size_t, std::int32_t token) {
      drawn.push_back(token);
      print_to(whole_characters(tokenizer_->decode_after(tokens, drawn)));
    };
    const Prompt prompt{tokens, answers_++};
    const Continuation made = generator_.engine().generate({&prompt, 1}, how_).front();
    const std::string text = tokenizer_->decode_after(tokens, made.tokens);
    print_to(text);
    std::fputc('\n', stdout);
    std::fflush(stdout);
    if (made.finish == Finish::length) tell(fmt::format("the answer was cut off after {} tokens", made.tokens.size()));
    return text;
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  TemplateEncoder encoder_;
  std::int64_t capacity_, max_new_;
  std::optional<std::string> system_;
  std::vector<Turn> turns_;
  std::uint64_t answers_ = 0;  // each has random numbers of its own
  GenerateOptions how_;
  Generator generator_;
};

}  // namespace

int chat_command(const std::vector<std::string>& arguments) {
  Words words;
  OptionTable table;
  declare(table, words);
  if (!read_command_line(table, usage, arguments)) return 0;
  require_option(table, "checkpoint");
  require_one_checkpoint(words.checkpoint);
  const rlhf::SavedModels saved(words.checkpoint, words.base);
  const rlhf::ModelCard card = generating_model(saved, words.model);
  require(saved.text_rules().has_tokenizer(), "the checkpoint '{}' has no tokenizer, so it cannot chat", words.checkpoint);
  require_chat_template(saved.text_rules().rules, words.checkpoint, "collimate chat");
  require(!table.given("context") || words.context <= card.config.context, "command line: --context={} is more than the model's context of {}",
          words.context, card.config.context);
  set_threads();
  Chat chat(words, saved, words.model, std::min(words.context, card.config.context),
            table.given("system") ? std::optional(words.system) : std::nullopt);
  const bool asks = isatty(STDIN_FILENO) != 0;
  if (asks) fmt::print(stderr, "{} of {}; /quit ends the dialogue\n", words.model, words.checkpoint);
  for (std::string line;;) {
    if (asks) std::fputs("> ", stderr);
    if (!std::getline(std::cin, line)) break;
    if (line.ends_with('\r')) line.pop_back();
    if (!chat.take(std::move(line)) || std::ferror(stdout) != 0) break;
  }
  if (asks) std::fputc('\n', stderr);
  return 0;
}

}  // namespace collimate
