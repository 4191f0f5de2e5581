#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "collimate/data/records.hpp"

namespace collimate {

/// What a field says: a text, or a dialogue of at least one message.
struct Said {
  std::string text;
  std::vector<Turn> turns;
  bool is_text() const { return turns.empty(); }
  bool operator==(const Said&) const = default;
};

/// A text, a number or a truth value as it is written, a message, a list of messages; or a list of any of these, which are several.
std::vector<Said> all_said(const Record& record, std::string_view name);
Said said(const Record& record, std::string_view name);  ///< throws where there are several

/// The messages of a list, or one message. Keys of messages that are not used are noted in the record.
std::vector<Turn> messages_of(const Record& record, std::string_view name, const Field& field);

}  // namespace collimate
