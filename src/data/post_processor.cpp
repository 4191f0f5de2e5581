#include <nlohmann/json.hpp>

#include "data/json_step.hpp"
#include "data/pipeline_tokenizer.hpp"

namespace collimate {
namespace {

using Reader = void (*)(JsonStep&, const TokenNames&, Surround&);

/// Puts tokens around those that an earlier step has put.
void enclose(Surround& surround, std::vector<std::int32_t> before, const std::vector<std::int32_t>& behind) {
  before.insert(before.end(), surround.before.begin(), surround.before.end());
  surround.before = std::move(before);
  surround.behind.insert(surround.behind.end(), behind.begin(), behind.end());
}

std::int32_t id_of(const json& id, const TokenNames& names, const JsonStep& step) {
  require(id.is_number_integer() && id >= 0 && id < names.size(), "{}: it adds the token {}, which the vocabulary lacks", step.place(), id.dump());
  return id.get<std::int32_t>();
}

void read_nothing(JsonStep& step, const TokenNames&, Surround&) { step.passed_over("add_prefix_space", "trim_offsets", "use_regex"); }

/// "cls" and "sep" are [text, id].
void read_pair(JsonStep& step, const TokenNames& names, Surround& surround) {
  step.passed_over("add_prefix_space", "trim_offsets");
  enclose(surround, {id_of(step.at("cls").at(1), names, step)}, {id_of(step.at("sep").at(1), names, step)});
}

/// "single" lists {"Sequence": ...} once and {"SpecialToken": {"id": its name in "special_tokens"}}.
void read_template(JsonStep& step, const TokenNames& names, Surround& surround) {
  step.passed_over("pair");
  const json tokens = step.get("special_tokens");
  std::vector<std::int32_t> before, behind;
  bool met = false;
  for (const json& piece : step.at("single")) {
    if (piece.contains("Sequence")) {
      met = true;
      continue;
    }
    for (const json& id : tokens.at(piece.at("SpecialToken").at("id").get<std::string>()).at("ids"))
      (met ? behind : before).push_back(id_of(id, names, step));
  }
  enclose(surround, std::move(before), behind);
}

constexpr StepRow<Reader> rows[] = {
    {"ByteLevel", read_nothing}, {"TemplateProcessing", read_template}, {"RobertaProcessing", read_pair}, {"BertProcessing", read_pair}};

}  // namespace

Surround read_post_processor(const json& whole, const TokenNames& names, const std::string& name) {
  Surround surround;
  for (const json& value : steps_of(whole, "processors")) {
    JsonStep step(value, "post-processor", name);
    row_of(step, "post-processor", rows).read(step, names, surround);
    step.end();
  }
  return surround;
}

}  // namespace collimate
