#include "collimate/data/chat_templates.hpp"

#include <algorithm>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "data/jinja_text.hpp"

// The chat templates that are known: their rules, and the texts that are recognised.
namespace collimate {
namespace {

using System = ChatForm::System;

// `{bos}` and `{eos}` stand for the tokenizer's tokens.
Template words(std::string human, std::string assistant, std::string system) {
  Template rules;
  rules.prompt = "{prompt}[[\n{input}]]";
  rules.human = std::move(human);
  rules.assistant = std::move(assistant);
  rules.system = std::move(system);
  rules.add_bos = false;
  return rules;
}

Template with_bos(Template rules) {
  rules.add_bos = true;
  return rules;
}

Template with_system(Template rules, std::string text) {
  rules.chat.default_system = std::move(text);
  return rules;
}

Template trimmed(Template rules, std::vector<std::string> roles) {
  rules.chat.trims = std::move(roles);
  return rules;
}

Template alternating(Template rules, System place) {
  rules.chat.alternates = true;
  rules.chat.system_place = place;
  return rules;
}

/// Every turn begins with its words and ends with `end`, behind which `between` stands.
Template marked(std::string human, std::string assistant, std::string system, std::string end, std::string_view between) {
  Template rules = words(std::move(human), std::move(assistant), std::move(system));
  rules.turn_suffix = fmt::format("{}{}", end, between);
  rules.response_suffix = std::move(end);
  rules.chat.cue_keeps_blanks = true;
  return rules;
}

Template chatml() { return marked("<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_start|>system\n", "<|im_end|>", "\n"); }
Template chatml_bos() { return with_bos(chatml()); }
Template chatml_alternating() { return alternating(chatml(), System::turn); }
Template smollm2() { return with_system(chatml(), "You are a helpful AI assistant named SmolLM, trained by Hugging Face"); }
Template qwen2() { return with_system(chatml(), "You are a helpful assistant."); }
Template qwen25() { return with_system(chatml(), "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."); }

/// Also TinyLlama's.
Template zephyr() { return marked("<|user|>\n", "<|assistant|>\n", "<|system|>\n", "{eos}", "\n"); }

Template llama3() {
  Template rules = marked("<|start_header_id|>user<|end_header_id|>\n\n", "<|start_header_id|>assistant<|end_header_id|>\n\n",
                          "<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>", "");
  return with_bos(trimmed(std::move(rules), {"human", "assistant", "system"}));
}

/// A system turn in front of every dialogue, with the date that its text falls back to.
Template llama31() {
  Template rules = with_system(llama3(), "");
  rules.chat.first_system = rules.system + "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
  return rules;
}

Template llama2() {
  Template rules = words("{bos}[INST] ", " ", "<<SYS>>\n");
  rules.chat.system_suffix = "\n<</SYS>>\n\n";
  rules.chat.human_suffix = " [/INST]";
  rules.chat.assistant_suffix = rules.response_suffix = " {eos}";
  return with_bos(trimmed(alternating(std::move(rules), System::in_question), {"human", "assistant", "question"}));
}
Template llama2_untrimmed() { return trimmed(llama2(), {}); }  // of fine-tuned models

Template mistral(std::string before, std::string behind, std::string answer, std::string end, System place) {
  Template rules = words(std::move(before), std::move(answer), "");
  rules.chat.system_suffix = "\n\n";
  rules.chat.human_suffix = std::move(behind);
  rules.chat.assistant_suffix = std::move(end);
  rules.response_suffix = "{eos}";
  return with_bos(alternating(std::move(rules), place));
}
Template mistral_v01() { return mistral("[INST] ", " [/INST]", "", "{eos} ", System::refused); }
Template mistral_v02() { return mistral("[INST] ", " [/INST]", "", "{eos}", System::refused); }
Template mistral_v1() { return mistral(" [INST] ", " [/INST]", " ", "{eos}", System::in_question); }
Template mistral_v3() { return trimmed(mistral("[INST] ", "[/INST]", " ", "{eos}", System::in_last_question), {"assistant"}); }
Template mistral_tekken() { return mistral("[INST]", "[/INST]", "", "{eos}", System::in_last_question); }

Template gemma() {
  Template rules = marked("<start_of_turn>user\n", "<start_of_turn>model\n", "", "<end_of_turn>", "\n");
  return with_bos(trimmed(alternating(std::move(rules), System::refused), {"human", "assistant"}));
}
Template gemma3() {
  Template rules = gemma();
  rules.chat.system_place = System::in_question;
  rules.chat.system_suffix = "\n\n";
  return rules;
}

/// Turns that begin with plain words: behind a question stands `gap`, behind an answer its end and then `between`.
Template plain_words(std::string human, std::string assistant, std::string gap, std::string end, std::string_view between) {
  Template rules = words(std::move(human), std::move(assistant), "");
  rules.chat.system_suffix = "\n\n";
  rules.chat.human_suffix = std::move(gap);
  rules.chat.assistant_suffix = fmt::format("{}{}", end, between);
  rules.response_suffix = std::move(end);
  return rules;
}
Template strict_words(Template rules) { return with_bos(trimmed(alternating(std::move(rules), System::turn), {"human", "assistant", "system"})); }

Template vicuna() { return strict_words(plain_words("USER: ", "ASSISTANT: ", "\n", "{eos}", "\n")); }
Template vicuna_bare() { return plain_words("USER: ", "ASSISTANT: ", "\n", "</s>", "\n"); }  // no BOS, and </s> whatever the tokenizer's EOS

Template alpaca() {
  Template rules = strict_words(plain_words("### Instruction:\n", "### Response:\n", "\n\n", "{eos}", "\n\n"));
  rules.chat.cue_keeps_blanks = true;
  return rules;
}

Template deepseek() { return with_bos(plain_words("User: ", "Assistant: ", "\n\n", "{eos}", "")); }

Template phi3() { return marked("<|user|>\n", "<|assistant|>\n", "<|system|>\n", "<|end|>", "\n"); }
Template phi35() {
  Template rules = phi3();
  rules.chat.skips_empty_system = true;
  return rules;
}
Template phi3_bos() { return with_bos(phi3()); }
Template phi3_strict() { return alternating(phi3(), System::refused); }  // its text drops system turns and asks for an answer behind each question
Template phi3_mini() { return with_bos(phi3_strict()); }

struct Row {
  const char* name;
  Template (*rules)();
};
constexpr Row rows[] = {{"chatml", chatml},
                        {"chatml-bos", chatml_bos},
                        {"chatml-alternating", chatml_alternating},
                        {"smollm2", smollm2},
                        {"qwen2", qwen2},
                        {"qwen2.5", qwen25},
                        {"zephyr", zephyr},
                        {"llama-3", llama3},
                        {"llama-3.1", llama31},
                        {"llama-2", llama2},
                        {"llama-2-untrimmed", llama2_untrimmed},
                        {"mistral-v0.1", mistral_v01},
                        {"mistral-v0.2", mistral_v02},
                        {"mistral-v1", mistral_v1},
                        {"mistral-v3", mistral_v3},
                        {"mistral-tekken", mistral_tekken},
                        {"gemma", gemma},
                        {"gemma-3", gemma3},
                        {"vicuna", vicuna},
                        {"vicuna-bare", vicuna_bare},
                        {"alpaca", alpaca},
                        {"deepseek", deepseek},
                        {"phi-3", phi3},
                        {"phi-3-mini", phi3_mini},
                        {"phi-3-medium", phi3_strict},
                        {"phi-3-small", phi3_bos},
                        {"phi-3.5", phi35}};

/// fnv1a() the canonical form of a text, its default system turn cut out (see cut_system()).
struct Text {
  std::uint64_t hash;
  const char* row;
};
constexpr Text texts[] = {
    {0x8677392ec4974f60, "chatml"},
    {0x302a58f4592a503f, "chatml-bos"},
    {0x519e6e62d06834fd, "chatml"},
    {0x61d9af544f75e3c3, "chatml"},
    {0xda96ebcae65d7eb3, "chatml-alternating"},
    {0x5619ad4eebc162d4, "chatml-alternating"},
    {0xa4cec073ca5f20de, "chatml"},
    {0x9697c80752f5cf52, "zephyr"},
    {0xdeeb6d38faae9fc2, "llama-3"},
    {0x7167e2c11f621594, "llama-3"},
    {0xe2f90b3c51c18467, "llama-3.1"},
    {0x39bb4633536f1801, "llama-3.1"},
    {0x719870fca95df513, "llama-2"},
    {0x31497e342631ea73, "llama-2-untrimmed"},
    {0x42296bf00164bf4b, "mistral-v0.1"},
    {0x1a4c55a7656146ec, "mistral-v0.2"},
    {0x151007e24c059de2, "mistral-v1"},
    {0x80b74f66242b104f, "mistral-v3"},
    {0xc66a4d5bf317b626, "mistral-tekken"},
    {0x4bdbb13f12845729, "gemma"},
    {0x7428166dff961b8a, "gemma-3"},
    {0x2b5f8f7bd8c55c68, "vicuna"},
    {0xd99cd56f64cde6ef, "vicuna"},
    {0xd6b340c9b044839e, "vicuna"},
    {0x24f9a7c3866c38ee, "vicuna-bare"},
    {0xc8904bcbb311ed53, "alpaca"},
    {0xffc291b2f58ebeaa, "alpaca"},
    {0xee8c8f54c4c48455, "deepseek"},
    {0xe7935f1742abdb73, "phi-3-mini"},
    {0x46ce2c99f533e070, "phi-3-small"},
    {0xe53f1d4bd590bd16, "phi-3-medium"},
    {0xc171f1424624c0d6, "phi-3"},
    {0xc07d0cef83189bc2, "phi-3.5"},
};

/// A text in canonical form, with a mark wherever its default system turn stood.
struct Cut {
  std::string form;
  std::optional<std::string> system;
};

/// The ways in which texts write their default system turn: what stands in front of its words, and behind them.
constexpr std::pair<std::string_view, std::string_view> system_places[] = {
    {"\x02<|im_start|>system\n", "<|im_end|>\n\x02"}, {"set system_message = \x02", "\x02\x1e"}};

Cut cut_system(std::string form) {
  for (const auto& [before, behind] : system_places) {
    for (std::size_t at = form.find(before); at != std::string::npos; at = form.find(before, at + 1)) {
      const std::size_t begin = at + before.size(), quote = form.find('\x02', begin), end = form.find(behind, begin);
      if (end == std::string::npos || end == begin || end > quote) continue;
      const std::string system = form.substr(begin, end - begin);
      return {replace_all(form, system, "\x01"), system};
    }
  }
  return {std::move(form), std::nullopt};
}

const Row& row_named(std::string_view name) {
  for (const Row& row : rows)
    if (name == row.name) return row;
  const std::vector<std::string> names = chat_template_names();
  fail("'{}' is no chat template that is known; it is one of {}", name, join(names, ", "));
}

}  // namespace

std::vector<std::string> chat_template_names() {
  std::vector<std::string> names;
  for (const Row& row : rows) names.emplace_back(row.name);
  return names;
}

std::uint64_t chat_template_hash(std::string_view jinja) { return fnv1a(cut_system(canonical_jinja(jinja)).form); }

std::optional<KnownChatTemplate> recognise_chat_template(std::string_view jinja) {
  const Cut cut = cut_system(canonical_jinja(jinja));
  const auto text = std::find_if(std::begin(texts), std::end(texts), [hash = fnv1a(cut.form)](const Text& t) { return t.hash == hash; });
  if (text == std::end(texts)) return std::nullopt;
  if (!cut.system) return KnownChatTemplate{text->row, std::nullopt};
  const Template rules = with_system(row_named(text->row).rules(), *cut.system);
  for (const Row& row : rows)
    if (row.rules() == rules) return KnownChatTemplate{row.name, std::nullopt};
  return KnownChatTemplate{text->row, cut.system};
}

Template chat_template_rules(const KnownChatTemplate& known, const Tokenizer& tokenizer) {
  Template rules = row_named(known.name).rules();
  if (known.default_system) rules.chat.default_system = known.default_system;
  rules.chat.name = known.name;
  const auto put = [&](std::string& text, std::string_view mark, std::optional<std::int32_t> id) {
    if (text.find(mark) == std::string::npos) return;
    require(id || mark == "{bos}", "the chat template '{}' ends turns with the end-of-text token, and the tokenizer has none", known.name);
    text = replace_all(text, mark, id ? tokenizer.piece(*id) : "");
  };
  for (std::string* text : {&rules.human, &rules.assistant, &rules.system, &rules.turn_suffix, &rules.response_suffix,
                            &rules.chat.human_suffix, &rules.chat.assistant_suffix, &rules.chat.system_suffix}) {
    put(*text, "{bos}", tokenizer.bos());
    put(*text, "{eos}", tokenizer.eos());
  }
  rules.add_bos = rules.add_bos && tokenizer.bos();
  rules.look_for_special(tokenizer);
  rules.add_eos = tokenizer.eos() && !end_of_answer(rules, tokenizer);
  return rules;
}

std::optional<std::int32_t> end_of_answer(const Template& rules, const Tokenizer& tokenizer) {
  const TemplateText end = TemplateText().add_own(rules.response_suffix);
  const std::vector<std::int32_t> ids = tokenizer.encode(end.text, end.own);
  if (!rules.special_tokens || ids.empty() || !tokenizer.is_special(ids.back())) return std::nullopt;
  return ids.back();
}

}  // namespace collimate
