#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace collimate {

/// Goes through the keys of one of the files beside a model by the table. Returns the lines to print on those that are not used or not known.
/// `file` is its name, `path` where it lies.
std::vector<std::string> look_at_keys(const std::string& file, const std::string& path, const nlohmann::json& content);

}  // namespace collimate
