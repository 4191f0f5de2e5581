#pragma once
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>

#include "collimate/base/error.hpp"

namespace collimate {

using nlohmann::json;

/// One step of a tokenizer.json, {"type": ..., its keys}. Every key must be asked for: end() refuses one that was not.
class JsonStep {
 public:
  /// `what` is "pre-tokenizer" and the like, `name` the file.
  JsonStep(const json& step, std::string what, std::string name) : step_(step), what_(std::move(what)), name_(std::move(name)) {
    require(step.is_object() && step.contains("type") && step["type"].is_string(), "{}: the {} {} has no \"type\"", name_, what_, step.dump());
    asked_.insert("type");
  }
  std::string type() const { return step_.at("type"); }
  std::string place() const { return name_ + ", " + what_ + " " + type(); }
  const std::string& name() const { return name_; }

  /// A value that must be there.
  const json& at(const std::string& key) {
    asked_.insert(key);
    require(step_.contains(key), "{}: \"{}\" is missing", place(), key);
    return step_[key];
  }
  /// null where it is absent.
  json get(const std::string& key) {
    asked_.insert(key);
    return step_.value(key, json());
  }
  template <class T>
  T get(const std::string& key, T absent) {
    const json value = get(key);
    return value.is_null() ? absent : value.get<T>();
  }
  template <class... Keys>
  void passed_over(const Keys&... keys) {  ///< known, and without effect on ids
    (asked_.insert(keys), ...);
  }
  void end() const {
    for (const auto& [key, value] : step_.items())
      require(asked_.contains(key), "{}: \"{}\": {} is not supported; take it out if it does not change the ids", place(), key, value.dump());
  }

 private:
  const json& step_;
  std::string what_, name_;
  std::set<std::string> asked_;
};

/// A row of a table of readers.
template <class Reader>
struct StepRow {
  std::string_view type;
  Reader read;
};

/// The row of the step's type; refuses a type that has none, and names those that have.
template <class Reader, std::size_t count>
const StepRow<Reader>& row_of(const JsonStep& step, const std::string& what, const StepRow<Reader> (&rows)[count]) {
  std::string known;
  for (const auto& row : rows) {
    if (row.type == step.type()) return row;
    known += (known.empty() ? "" : ", ") + std::string(row.type);
  }
  fail("{}: the {} {} is not supported; supported are {}", step.name(), what, step.type(), known);
}

/// The steps of {"type": "Sequence", list_key: [...]}, which may be nested, or the one step; none for null.
inline std::vector<json> steps_of(const json& whole, const char* list_key) {
  if (whole.is_null()) return {};
  if (!whole.is_object() || whole.value("type", "") != "Sequence") return {whole};
  std::vector<json> steps;
  for (const json& step : whole.at(list_key))
    for (json& inner : steps_of(step, list_key)) steps.push_back(std::move(inner));
  return steps;
}

}  // namespace collimate
