#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <iostream>
#include <map>
#include <numeric>

#include "app/command_line.hpp"
#include "app/generator.hpp"
#include "collimate/app/commands.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/base/utf8.hpp"
#include "collimate/base/threads.hpp"
#include "collimate/io/json_lines.hpp"
#include "collimate/kernels/head.hpp"
#include "collimate/kernels/rows.hpp"

namespace collimate {
namespace {

constexpr const char* usage =
    "collimate generate --checkpoint CHECKPOINT [--prompt TEXT ... | --prompt-ids 1,2,3 ...] [OPTIONS]: continues prompts. Without one\n"
    "on the command line, each line of standard input that is not blank is a prompt. The checkpoint's template is applied to texts, not\n"
    "to ids; with a chat template a prompt is a user's question. A sample depends on the model, its prompt, its number and the seed, not on what else is generated with it.";

struct Words : GenerateWords {
  Words() { max_new = 100; }
  std::string prompt, prompt_ids, stop = "eos";
  std::int64_t samples = 1, slots = 32;
  bool raw = false, logprobs = false, json = false;
};

void declare(OptionTable& table, Words& words) {
  declare_model(table, words);
  table.add("prompt", words.prompt, "a text to continue; may be given several times");
  table.add("prompt-ids", words.prompt_ids, "token ids to continue, separated by commas; may be given several times");
  table.add("system", words.system, "the system message in front of every prompt, for models with a chat template");
  table.add("max-new", words.max_new, "most new tokens; where it is not given, the context may set a lower limit", at_least(1), "tokens");
  declare_drawing(table, words);
  table.add("stop", words.stop, "what ends a sample before --max-new: eos: all ends of text that the imported folder named", one_of({"eos", "none"}));
  table.add("samples", words.samples, "samples of each prompt", between(1, 1000000));
  table.add("raw", words.raw, "texts are continued as they are: without the template, but with its BOS");
  table.add("logprobs", words.logprobs,
            "also prints each new token, its text and its log-probability in the distribution that it was drawn from; with --temperature 0 "
            "in the model's own (temperature 1)");
  table.add("json", words.json,
            "prints one JSON object per sample and line: prompt, sample, text, finish_reason (stop or length), tokens, prompt_tokens, and with "
            "--logprobs logprobs; bytes that are not UTF-8 are U+FFFD in its texts");
  table.add("slots", words.slots, "sequences computed at once; changes speed and memory, not results", between(1, 4096));
  table.words_are_for("checkpoint");
}

/// Takes every `--name VALUE` and `--name=VALUE` out of the arguments: these values may hold commas and come several times.
std::vector<std::string> take_out(std::vector<std::string>& arguments, const std::string& name) {
  std::vector<std::string> values, rest;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].starts_with(name + "=")) {
      values.push_back(arguments[i].substr(name.size() + 1));
    } else if (arguments[i] == name) {
      require(i + 1 < arguments.size(), "command line: {} needs a value", name);
      values.push_back(arguments[++i]);
    } else {
      rest.push_back(arguments[i]);
    }
  }
  arguments = std::move(rest);
  return values;
}

struct Input {
  std::string shown;  ///< as it was given
  std::vector<std::int32_t> tokens;
};

std::vector<std::int32_t> read_ids(const std::string& text, std::int64_t vocabulary) {
  std::vector<std::int32_t> ids;
  for (const std::string& word : split(text, ',')) {
    std::int32_t id = -1;
    const auto [end, problem] = std::from_chars(word.data(), word.data() + word.size(), id);
    require(problem == std::errc() && end == word.data() + word.size() && id >= 0 && id < vocabulary,
            "command line: --prompt-ids={}: '{}' is not a token id of this model; give whole numbers from 0 to {}, separated by commas", text,
            word, vocabulary - 1);
    ids.push_back(id);
  }
  require(!ids.empty(), "command line: --prompt-ids needs at least one token id");
  return ids;
}

std::vector<std::string> read_lines() {
  if (isatty(STDIN_FILENO) != 0) std::fputs("Prompts, one per line, until Ctrl-D:\n", stderr);
  std::vector<std::string> lines;
  for (std::string line; std::getline(std::cin, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (lines.empty() && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);  // the byte order mark of some editors
    if (!trim(line).empty()) lines.push_back(line);
  }
  require(!lines.empty(), "there is no prompt: give --prompt or --prompt-ids, or one prompt per line on standard input");
  return lines;
}

std::vector<std::int32_t> encode(const std::string& text, const std::string& place, const rlhf::TextRules& rules, const Tokenizer& tokenizer,
                                 const Words& words, bool with_system) {
  Example example;
  example.prompt = text;
  example.complete = words.raw;
  if (with_system) example.turns = {{"system", words.system}, {"human", text}};
  LengthCounts counts;
  std::vector<std::int32_t> tokens;
  const TemplateEncoder encoder(rules.rules, tokenizer);
  require(encoder.prompt(rules.rules.prompt_text(example), place, tokens, counts),
          "{} is longer than the {} tokens of the checkpoint's template", place, rules.rules.max_prompt_tokens);
  if (counts.cut_prompts > 0)
    fmt::print(stderr, "{} was cut on the left to {} tokens, as the checkpoint's template says\n", place, tokens.size());
  require(!tokens.empty(), "{} is empty, and the template adds no beginning-of-text token; give some text", place);
  return tokens;
}

/// How many tokens each prompt may get: max_new, or what the context leaves where that was not asked for in so many words. The last
/// token is never computed with, so a prompt and its continuation may have one token more than the context.
std::vector<std::int64_t> limits(const std::vector<Input>& inputs, std::int64_t max_new, bool given, std::int64_t context) {
  std::vector<std::int64_t> out;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const auto length = static_cast<std::int64_t>(inputs[i].tokens.size());
    require(length <= context, "prompt {} has {} tokens, and the model's context is {}; shorten it", i + 1, length, context);
    const std::int64_t room = context + 1 - length;
    require(max_new <= room || !given,
            "prompt {} has {} tokens and the model's context is {}, so --max-new={} does not fit; give at most {}", i + 1, length, context,
            max_new, room);
    out.push_back(std::min(max_new, room));
  }
  return out;
}

/// samples[i * samples_each + s] continues inputs[i].
std::vector<Continuation> generate(Engine& engine, const std::vector<Input>& inputs, const std::vector<std::int64_t>& max_new,
                                   std::int64_t samples_each, GenerateOptions how) {
  std::map<std::int64_t, std::vector<Prompt>> by_limit;  // a call of the engine has one limit
  for (std::size_t i = 0; i < inputs.size(); ++i)
    for (std::int64_t s = 0; s < samples_each; ++s)
      by_limit[max_new[i]].push_back({inputs[i].tokens, static_cast<std::uint64_t>(static_cast<std::int64_t>(i) * samples_each + s)});
  std::vector<Continuation> out(inputs.size() * static_cast<std::size_t>(samples_each));
  for (const auto& [limit, prompts] : by_limit) {
    how.max_new = limit;
    std::vector<Continuation> made = engine.generate(prompts, how);
    for (std::size_t i = 0; i < made.size(); ++i) out[prompts[i].sample] = std::move(made[i]);
  }
  return out;
}

std::string list(const std::vector<std::int32_t>& ids) { return fmt::format("{}", fmt::join(ids, ",")); }

/// The quoted text that a token adds behind those before it, with U+FFFD for a part of a character; a special one, which adds none, shows its
/// name.
std::string shown(const Tokenizer& tokenizer, const std::vector<std::int32_t>& before, std::int32_t token) {
  const std::int32_t one[] = {token};
  return fmt::format("{:?}", as_utf8(tokenizer.is_special(token) ? tokenizer.piece(token) : tokenizer.decode_after(before, one)));
}

std::string text_of(const Input& input, const Continuation& sample, const Tokenizer* tokenizer) {
  return tokenizer == nullptr ? "" : tokenizer->decode_after(input.tokens, sample.tokens);
}

void print_json(const Input& input, const Continuation& sample, std::int64_t number, const Tokenizer* tokenizer, bool logprobs) {
  const auto ids = [](const std::vector<std::int32_t>& tokens) { return fmt::format("[{}]", list(tokens)); };
  JsonLine line;
  line.add("prompt", input.shown).add("sample", number).add("text", text_of(input, sample, tokenizer));
  line.add("finish_reason", sample.finish == Finish::end_of_text ? "stop" : "length");
  line.add_raw("tokens", ids(sample.tokens)).add_raw("prompt_tokens", ids(input.tokens));
  if (logprobs) line.add("logprobs", std::vector<double>(sample.logprobs.begin(), sample.logprobs.end()));
  fmt::print("{}\n", line.text());
}

void print(const Input& input, const Continuation& sample, const std::string& heading, const Tokenizer* tokenizer, bool ids,
           bool logprobs) {
  print_text(fmt::format("{}: {}\n", heading, input.shown));
  if (ids) fmt::print("tokens: {}\n", list(sample.tokens));
  if (tokenizer != nullptr) {
    print_text("text: " + text_of(input, sample, tokenizer) + "\n");
  }
  if (logprobs) {
    std::fputs("   token  log-probability  text\n", stdout);
    std::vector<std::int32_t> before = input.tokens;
    for (std::size_t t = 0; t < sample.tokens.size(); ++t) {
      const std::int32_t token = sample.tokens[t];
      fmt::print("{:>8}  {:>15.6f}  {}\n", token, sample.logprobs[t], tokenizer == nullptr ? "" : shown(*tokenizer, before, token));
      before.push_back(token);
    }
    fmt::print("     sum  {:>15.6f}\n", std::accumulate(sample.logprobs.begin(), sample.logprobs.end(), 0.0));
  }
  fmt::print("[{}, ended by {}]\n\n", counted(std::ssize(sample.tokens), "token"), sample.finish == Finish::end_of_text ? "end of text" : "length");
}

/// What is to be continued: ids as they are given, or texts by the checkpoint's rules.
std::vector<Input> inputs_of(std::vector<std::string> texts, const std::vector<std::string>& ids, const rlhf::TextRules& rules,
                             const Tokenizer* tokenizer, const Words& words, bool with_system, std::int64_t vocabulary) {
  require(texts.empty() || ids.empty(), "command line: give --prompt or --prompt-ids, not both");
  require(!with_system || (ids.empty() && !words.raw), "command line: --system goes into the chat template, which {} leaves out",
          words.raw ? "--raw" : "--prompt-ids");
  std::vector<Input> inputs;
  for (const std::string& text : ids) inputs.push_back({text, read_ids(text, vocabulary)});
  if (!ids.empty()) return inputs;
  require(tokenizer != nullptr, "the checkpoint '{}' has no tokenizer; give token ids with --prompt-ids", words.checkpoint);
  if (with_system) require_chat_template(rules.rules, words.checkpoint, "--system");
  if (texts.empty()) texts = read_lines();
  for (std::size_t i = 0; i < texts.size(); ++i)
    inputs.push_back({texts[i], encode(texts[i], fmt::format("prompt {}", i + 1), rules, *tokenizer, words, with_system)});
  return inputs;
}

}  // namespace

int generate_command(const std::vector<std::string>& arguments) {
  std::vector<std::string> rest = arguments;
  std::vector<std::string> texts = take_out(rest, "--prompt");
  const std::vector<std::string> ids = take_out(rest, "--prompt-ids");
  Words words;
  OptionTable table;
  declare(table, words);
  if (!read_command_line(table, usage, rest)) return 0;
  require_option(table, "checkpoint");
  require_one_checkpoint(words.checkpoint);
  const rlhf::SavedModels saved(words.checkpoint, words.base);
  const rlhf::ModelCard card = generating_model(saved, words.model);
  const rlhf::TextRules rules = saved.text_rules();
  const auto tokenizer = rules.has_tokenizer() ? rules.make_tokenizer() : nullptr;
  const std::vector<Input> inputs =
      inputs_of(std::move(texts), ids, rules, tokenizer.get(), words, table.given("system"), card.config.vocabulary);
  const std::vector<std::int64_t> max_new = limits(inputs, words.max_new, table.given("max-new"), card.config.context);

  std::int64_t longest = 0, capacity = 0, total = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const auto length = static_cast<std::int64_t>(inputs[i].tokens.size());
    longest = std::max(longest, length);
    capacity = std::max(capacity, length + max_new[i]);
    total += length * words.samples;
  }
  const std::int64_t sequences = std::ssize(inputs) * words.samples;
  set_threads();
  Generator generator(saved, words.model,
                      {.rows = kernels::padded_rows(std::max(longest, std::min<std::int64_t>(total, 1024))),
                       .most_grains = 0,
                       .slots = std::min(words.slots, sequences),
                       .capacity = capacity},
                      words.memory.caps());
  GenerateOptions how;
  how.sampling = {words.temperature, words.top_k, words.top_p};
  how.key = RandomKey(static_cast<std::uint64_t>(words.seed), Purpose::sampling);
  if (words.stop == "eos") how.stop = rules.stops(tokenizer.get());
  const std::vector<Continuation> samples = generate(generator.engine(), inputs, max_new, words.samples, how);

  for (std::int64_t i = 0; i < sequences; ++i) {
    const std::int64_t number = i / words.samples;
    if (words.json) {
      print_json(inputs[static_cast<std::size_t>(number)], samples[static_cast<std::size_t>(i)], i % words.samples, tokenizer.get(), words.logprobs);
      continue;
    }
    std::string heading = "prompt";
    if (inputs.size() > 1) heading += fmt::format(" {}", number + 1);
    if (words.samples > 1) heading += fmt::format(", sample {} of {}", i % words.samples + 1, words.samples);
    print(inputs[static_cast<std::size_t>(number)], samples[static_cast<std::size_t>(i)], heading, tokenizer.get(), !ids.empty(),
          words.logprobs);
  }
  return 0;
}

}  // namespace collimate
