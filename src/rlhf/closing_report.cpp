// What a run prints at its end: what was learned, and where the time went.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "collimate/base/text.hpp"
#include "collimate/rlhf/stages.hpp"

namespace collimate::rlhf {
namespace {

using nlohmann::json;

/// A row of a section: what it shows, and under which keys of the summary its one or two columns stand.
struct Row {
  const char *what, *first, *second = nullptr;
};

/// A section without a value to show is left out.
std::string section(const json& summary, const std::string& title, const std::vector<const char*>& columns, const std::vector<Row>& rows) {
  std::string head = fmt::format("{:<44}", title), body;
  for (const char* column : columns) head += fmt::format(" {:>10}", column);
  for (const Row& row : rows) {
    if (!summary.contains(row.first)) continue;
    body += fmt::format("  {:<42}", row.what);
    for (const char* key : {row.first, row.second})
      if (key && summary.contains(key)) body += fmt::format(" {:>10.3f}", summary[key].get<double>());
    body += '\n';
  }
  return body.empty() ? "" : fmt::format("{}\n{}", columns.empty() ? title : head, body);
}

// On one line, and harmless to a terminal.
std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  return std::string(trim(text));
}

// Seconds of each stage and its phases, over all starts of the run.
std::string times(const Session& session) {
  const auto of = [&](const std::string& key) {
    const auto found = session.seconds.find(key);
    return found == session.seconds.end() ? 0.0 : found->second;
  };
  double all = 0;
  for (const std::string stage : {"prepare", "sft", "reward", "ppo", "evaluate"}) all += of(stage);
  const auto line = [&](const std::string& indent, const std::string& name, double seconds) {
    return fmt::format("{:<44} {:>10.1f} {:>8.0f} %\n", indent + name, seconds, 100 * seconds / all);
  };
  std::string out = fmt::format("{:<44} {:>10} {:>10}\n", "Time, all starts of the run", "seconds", "share");
  for (const std::string stage : {"prepare", "sft", "reward", "ppo", "evaluate"}) {
    if (!session.seconds.contains(stage)) continue;
    out += line("  ", stage, of(stage));
    for (const std::string phase : {"generate", "score", "update", "evaluate", "checkpoint"})
      if (const double seconds = of(stage + "." + phase); seconds > 0) out += line("    ", phase, seconds);
  }
  return out + fmt::format("This start took {} and ended at {}.\n", human_duration(session.clock.seconds()), local_time());
}

/// What each stage of this start planned on device and host, and what its process took at the most: the libraries and files of a run come on top.
std::string memory(const Session& session) {
  const auto mebibytes = [](std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  std::string out;
  for (const std::string stage : {"sft", "reward", "ppo", "evaluate"}) {
    const auto planned = session.planned_tiers.find(stage);
    const auto peak = session.peaks.find(stage);
    if (planned == session.planned_tiers.end() || peak == session.peaks.end()) continue;
    out += fmt::format("  {:<42} {:>10.1f} {:>10.1f} {:>10.1f}\n", stage, mebibytes(planned->second.device), mebibytes(planned->second.host),
                       mebibytes(peak->second));
  }
  return out.empty() ? "" : fmt::format("{:<44} {:>10} {:>10} {:>10}\n{}", "Memory of the largest rank, MiB", "device", "host", "process", out);
}

}  // namespace

std::string closing_report(const Session& session) {
  const json s = json::parse(session.summary.text());
  const bool built_in = session.options.ppo.scorer.kind != "model";
  const bool learned = s.contains("ppo.reward_after");  // without an iteration there is no after
  const Row raw_ppo{"the same, before normalisation and sign", "ppo.raw_reward_before", "ppo.raw_reward_after"};
  const Row raw_evaluated{"the same, before normalisation and sign", "evaluate.raw_reward"};
  std::vector<const char*> columns = {"before PPO"};
  if (learned) columns.push_back("after PPO");
  std::vector<Row> ppo = {{"share of preferred answers", "ppo.preferred_before", "ppo.preferred_after"},
                          {"mean score", "ppo.reward_before", "ppo.reward_after"},
                          {"standard error over prompts", "ppo.reward_error_before", "ppo.reward_error_after"}};
  if (built_in) ppo.push_back(raw_ppo);
  ppo.push_back({"KL to the reference, nats per sample", "ppo.kl_before", "ppo.kl"});
  std::vector<Row> evaluated = {{"share of preferred answers", "evaluate.preferred"},
                                {"mean score", "evaluate.reward"},
                                {"standard error over prompts", "evaluate.reward_error"}};
  if (built_in) evaluated.push_back(raw_evaluated);
  evaluated.push_back({"KL to the reference, nats per sample", "evaluate.kl"});

  std::string out = "\n" + section(s, "PPO, held-out prompts", columns, ppo);
  out += section(s, "SFT, held-out samples", {},
                 {{"loss, nats per token", "sft.eval_loss"}, {"loss, nats per byte of text", "sft.eval_nats_per_byte"}});
  out += section(s, "Reward model, held-out pairs", {}, {{"share ranked correctly", "reward.accuracy"}});
  out += section(s, "Stage evaluate", {}, evaluated);
  for (int i = 1; s.contains(fmt::format("ppo.sample{}_prompt", i)); ++i) {
    const auto text = [&](const char* what) { return one_line(s.value(fmt::format("ppo.sample{}_{}", i, what), "")); };
    out += fmt::format("\n  {}\n    before: {}\n", text("prompt"), text("before"));
    if (learned) out += fmt::format("    after:  {}\n", text("after"));
  }
  const std::string& folder = session.options.run.folder;
  out += fmt::format("\n{}{}\nRun folder {}: log.txt, metrics.jsonl, samples.jsonl, hashes.jsonl, summary.json, checkpoints/\n", memory(session),
                     times(session), folder);
  for (const std::string stage : {"ppo", "sft"})
    if (s.contains(stage + ".state_hash"))
      return out + fmt::format("Try it: collimate generate --checkpoint {} --prompt \"...\"\n", shell_word(folder + "/checkpoints/" + stage));
  return out;
}

}  // namespace collimate::rlhf
