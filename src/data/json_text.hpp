#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "collimate/data/records.hpp"

namespace collimate {

/// A record that cannot be used; the parser stands behind it and can go on.
struct BadRecord {
  std::int64_t line;
  std::string reason;
};

/// Throws BadRecord at a byte that is not UTF-8.
void require_utf8(std::string_view text, std::int64_t line);

/// The record of a JSON object. Throws BadRecord for a text that is none, or has a key twice in one object.
Record object_record(std::string_view text, std::int64_t line);

// Parts of a JSON text that is known to be well formed. Numbers keep their characters: 51.0 stays "51.0".
std::map<std::string, Field, std::less<>> json_members(std::string_view object);  ///< with those that are null
std::vector<Field> json_elements(std::string_view list);

}  // namespace collimate
