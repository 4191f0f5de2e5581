#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "app/diff.hpp"
#include "collimate/base/atomic_file.hpp"
#include "collimate/base/text.hpp"
#include "collimate/rlhf/saved_models.hpp"

namespace collimate {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// A step of a stage (or iteration; 0: before the first), in the order of a run.
struct Moment {
  int stage = 0;
  std::int64_t step = 0;
  auto operator<=>(const Moment&) const = default;
};

/// What a run wrote of one step: each file's lines by what they are about.
struct Step {
  std::map<std::string, std::string> samples, metrics;
  std::vector<std::pair<std::string, std::string>> hashes;  // in the order of the run
};

/// A difference within a step.
struct Finding {
  int order;  // of what was computed first: samples, losses, hashes, what follows from them
  std::string text;
  std::string model = "", tensor = "";  // of a hash
};

struct Run {
  std::string path;
  std::map<Moment, Step> steps;
  std::string file(const std::string& name) const { return (fs::path(path) / name).string(); }
};

class Stages {
 public:
  int place(const std::string& name) {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) return names_.push_back(name), static_cast<int>(names_.size()) - 1;
    return static_cast<int>(found - names_.begin());
  }
  const std::string& name(int place) const { return names_[place]; }
  std::string text(const Moment& at) const {
    const std::string& stage = names_[at.stage];
    return at.step == 0 ? "start of " + stage : fmt::format("{} {} {}", stage, stage == "ppo" ? "iteration" : "step", at.step);
  }

 private:
  std::vector<std::string> names_;
};

/// Calls each(line, parsed) for the whole lines of a file; one that is not there has none.
template <class Each>
void for_each_line(const std::string& path, const Each& each) {
  if (!fs::exists(path)) return;
  const std::string text = read_file(path);
  std::int64_t number = 0;
  for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string line = text.substr(begin, end - begin);
    const Json json = Json::parse(line, nullptr, false);
    ++number;
    require(json.is_object() && json.contains("stage"), "line {} of '{}' is not one that a run writes: the file is damaged", number, path);
    each(line, json);
  }
}

Moment moment_of(const Json& line, Stages& stages) {
  const bool iteration = line.contains("iteration");  // evaluations of PPO's policy are a part of the iteration
  const std::string stage = iteration ? "ppo" : line["stage"].get<std::string>();
  return {stages.place(stage), iteration ? line["iteration"].get<std::int64_t>() : line.value("step", std::int64_t{0})};
}

Run read_run(const std::string& path, Stages& stages) {
  Run run{path, {}};
  for_each_line(run.file("metrics.jsonl"), [&](const std::string& line, const Json& json) {
    auto& lines = run.steps[moment_of(json, stages)].metrics;
    lines[fmt::format("line {}", lines.size())] = line;
  });
  for_each_line(run.file("samples.jsonl"), [&](const std::string& line, const Json& json) {
    auto& lines = run.steps[moment_of(json, stages)].samples;
    lines[fmt::format("{} {:06}", json["stage"] == "evaluate" ? "sample of the evaluation" : "sample", lines.size())] = line;
  });
  for_each_line(run.file("hashes.jsonl"), [&](const std::string& line, const Json& json) {
    const std::string update = json.contains("update") ? fmt::format(" (update {})", json["update"].get<std::int64_t>()) : "";
    run.steps[moment_of(json, stages)].hashes.push_back(
        {fmt::format("{} of {}{}", json.value("phase", ""), json.value("model", ""), update), line});
  });
  return run;
}

std::string shown(const Json& value) {
  const std::string text = value.dump();
  return text.size() > 100 ? text.substr(0, 100) + " ..." : text;
}

/// Keys whose values follow from gradients or new values. An iteration of PPO takes several steps, whose metrics follow from each other.
bool follows_update(const std::string& key, const std::string& stage) {
  return stage == "ppo" || key.find("gradient_norm") != std::string::npos || key.find("hash") != std::string::npos ||
         key.starts_with("eval_");
}

void compare_lines(const std::string& a, const std::string& b, const std::string& what, const std::string& stage, int order,
                   std::vector<Finding>& out) {
  const Json left = Json::parse(a), right = Json::parse(b);
  for (const auto& [key, value] : left.items()) {
    const bool follows = order < 0 ? follows_update(key, stage) : false;
    const int at = order >= 0 ? order : follows ? 3 : 1;
    const std::string name = what.empty() ? key : what + ", " + key;
    if (right.contains(key) && right[key] != value)
      out.push_back({at, fmt::format("{}: {} in A, {} in B", name, shown(value), shown(right[key]))});
    else if (!right.contains(key) && !key.ends_with("_hash"))  // run.hash_every may differ
      out.push_back({at, fmt::format("{}: only in A", name)});
  }
  for (const auto& [key, value] : right.items())
    if (!left.contains(key) && !key.ends_with("_hash")) out.push_back({3, fmt::format("{}: only in B", key)});
}

void compare_hashes(const std::string& a, const std::string& b, const std::string& what, std::vector<Finding>& out) {
  const Json left = Json::parse(a), right = Json::parse(b);
  std::string first, also;
  std::int64_t different = 0;
  for (const auto& [tensor, hash] : left["tensors"].items())
    if (!right["tensors"].contains(tensor) || right["tensors"][tensor] != hash)
      if (different++ == 0) first = tensor;
  if (different > 1) also = fmt::format(", and {} more of {} tensors", different - 1, left["tensors"].size());
  if (different) out.push_back({2, fmt::format("{}: {}{}", what, first, also), left.value("model", ""), first});
}

/// All that differs in a step, what was computed first first.
std::vector<Finding> compare(const Step& a, const Step& b, const std::string& stage) {
  std::vector<Finding> out;
  const auto lines = [&](const auto& left, const auto& right, const std::string& file, bool samples) {
    for (const auto& [what, line] : left) {
      const auto other = right.find(what);
      const int order = !samples ? -1 : what.starts_with("sample of") ? 4 : 0;
      if (other != right.end() && other->second != line)
        compare_lines(line, other->second, samples ? fmt::format("sample {}", Json::parse(line).value("sample", std::int64_t{0})) : "",
                      stage, order, out);
    }
    if (left.size() != right.size()) out.push_back({3, fmt::format("{} has {} lines in A and {} in B", file, left.size(), right.size())});
  };
  lines(a.samples, b.samples, "samples.jsonl", true);
  lines(a.metrics, b.metrics, "metrics.jsonl", false);
  for (const auto& [what, line] : a.hashes)
    for (const auto& [other, text] : b.hashes)
      if (what == other && line != text) compare_hashes(line, text, what, out);
  std::stable_sort(out.begin(), out.end(), [](const Finding& x, const Finding& y) { return x.order < y.order; });
  return out;
}

std::optional<Moment> first_difference(const Run& a, const Run& b, const Stages& stages, Moment from, bool hashed) {
  std::map<Moment, int> all;
  for (const Run* run : {&a, &b})
    for (const auto& [at, step] : run->steps) all[at];
  for (const auto& [at, nothing] : all) {
    if (at < from) continue;
    const auto left = a.steps.find(at), right = b.steps.find(at);
    const Step none, &x = left == a.steps.end() ? none : left->second, &y = right == b.steps.end() ? none : right->second;
    const auto found = compare(x, y, stages.name(at.stage));
    if (std::any_of(found.begin(), found.end(), [&](const Finding& f) { return !hashed || !f.tensor.empty(); })) return at;
  }
  return std::nullopt;
}

/// The checkpoints of a stage by their steps.
std::map<std::int64_t, std::string> checkpoints(const Run& run, const std::string& stage) {
  std::map<std::int64_t, std::string> out;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(run.file("checkpoints"), error)) {
    const std::string name = entry.path().filename().string(), number = name.substr(std::min(name.size(), stage.size() + 1));
    const bool numbered = name.starts_with(stage + "-") && !number.empty() && number.find_first_not_of("0123456789") == std::string::npos;
    if ((name != stage && !numbered) || !fs::exists(entry.path() / "manifest.json")) continue;
    out[Json::parse(rlhf::SavedModels(entry.path().string()).progress()).value("step", std::int64_t{0})] = entry.path().string();
  }
  return out;
}

/// The element that differs in the nearest checkpoint, or why none can be named.
std::string element_text(const Run& a, const Run& b, const std::string& stage, std::int64_t step, const Finding& tensor) {
  const auto left = checkpoints(a, stage), right = checkpoints(b, stage);
  for (auto at = left.lower_bound(step); at != left.end(); ++at) {
    const auto other = right.find(at->first);
    if (other == right.end()) continue;
    const Verdict verdict = diff_checkpoints(at->second, other->second, tensor.model, tensor.tensor);
    const std::string names = fmt::format("checkpoints after {} {} ({}, {})", stage == "ppo" ? "iteration" : "step", at->first,
                                          fs::path(at->second).filename().string(), fs::path(other->second).filename().string());
    return verdict.equal ? fmt::format("The {} are equal.", names) : fmt::format("In the {}:\n  {}", names, verdict.text);
  }
  return fmt::format(
      "No element can be named: no checkpoint of {} after this step is in both runs. Run both with --{}.checkpoint_every=1 and "
      "--run.stop_after at this step (of a stage that is not finished, the last two checkpoints are kept).",
      stage, stage);
}

std::string deck_difference(const Run& a, const Run& b) {
  std::map<std::string, std::string> decks[2];
  for (const Run* run : {&a, &b}) {
    std::string section;
    if (!fs::exists(run->file("deck.ini"))) return "";
    for (const std::string& line : split(read_file(run->file("deck.ini")), '\n')) {
      if (line.starts_with('[')) section = line.substr(1, line.find(']') - 1) + ".";
      if (const auto equals = line.find(" = "); equals != std::string::npos)
        decks[run == &b][section + line.substr(0, equals)] = line.substr(equals + 3);
    }
  }
  std::string out;
  for (const auto& [key, value] : decks[0])
    if (key != "run.folder" && decks[1][key] != value)
      out += fmt::format("{}{} is '{}' in A and '{}' in B", out.empty() ? "" : "; ", key, value, decks[1][key]);
  return out.empty() ? "" : fmt::format("The decks differ: {}\n", out);
}

Verdict describe(const Run& a, const Run& b, const Moment& at, const Stages& stages) {
  if (!a.steps.contains(at) || !b.steps.contains(at))
    return {false, fmt::format("{}first difference: {} is only in {}; all before it is equal", deck_difference(a, b), stages.text(at),
                               a.steps.contains(at) ? "A" : "B")};
  const Step &x = a.steps.at(at), &y = b.steps.at(at);
  const std::string& stage = stages.name(at.stage);
  const auto found = compare(x, y, stage);
  const auto tensor = [](const std::vector<Finding>& some) {
    const auto hash = std::find_if(some.begin(), some.end(), [](const Finding& f) { return !f.tensor.empty(); });
    return hash == some.end() ? Finding{} : *hash;
  };
  Verdict verdict{false, fmt::format("{}first difference: {}, {}\n", deck_difference(a, b), stages.text(at), found[0].text)};
  for (std::size_t i = 1; i < found.size() && i < 8; ++i) verdict.text += fmt::format("  then {}\n", found[i].text);
  if (found.size() > 8) verdict.text += fmt::format("  and {} more\n", found.size() - 8);
  Finding first = tensor(found);
  if (first.tensor.empty()) {
    const auto hashed = first_difference(a, b, stages, at, true);
    if (hashed) {
      first = tensor(compare(a.steps.at(*hashed), b.steps.at(*hashed), stages.name(hashed->stage)));
      verdict.text += fmt::format("The next step at which both hashed tensors that differ: {}, {}\n", stages.text(*hashed), first.text);
    }
    if (x.hashes.empty() || y.hashes.empty()) verdict.text += "Tensors were not hashed at this step: run both with --run.hash_every=1.\n";
  }
  if (stage != "evaluate") verdict.text += element_text(a, b, stage, at.step, first);
  return verdict;
}

/// What is left where all lines are equal: the state at the end.
Verdict compare_summaries(const Run& a, const Run& b) {
  std::size_t lines = 0;
  for (const auto& [at, step] : a.steps) lines += step.metrics.size() + step.samples.size() + step.hashes.size();
  const Verdict equal{true, fmt::format("{}equal: {} lines of metrics, samples and hashes", deck_difference(a, b), lines)};
  if (!fs::exists(a.file("summary.json")) || !fs::exists(b.file("summary.json"))) return equal;
  const Json left = Json::parse(read_file(a.file("summary.json"))), right = Json::parse(read_file(b.file("summary.json")));
  for (const auto& [key, value] : left.items()) {
    if (key.ends_with(".seconds") || key.ends_with("peak_memory_bytes") || !right.contains(key) || right[key] == value) continue;
    const std::string stage = key.substr(0, key.find('.'));
    const bool known = stage == "sft" || stage == "reward" || stage == "ppo";
    return {false, fmt::format("{}first difference: end of the run, {} in summary.json: {} in A, {} in B\n{}", deck_difference(a, b), key,
                               shown(value), shown(right[key]), known ? element_text(a, b, stage, 0, {}) : "")};
  }
  return equal;
}

}  // namespace

Verdict diff_runs(const std::string& a, const std::string& b) {
  Stages stages;
  const Run left = read_run(a, stages), right = read_run(b, stages);
  const auto at = first_difference(left, right, stages, {}, false);
  return at ? describe(left, right, *at, stages) : compare_summaries(left, right);
}

}  // namespace collimate
