#pragma once
#include <string_view>

#include "collimate/data/formats.hpp"

namespace collimate {

// The first of the usual names that the record has; empty: none.
std::string_view prompt_field(const Record& record);
std::string_view response_field(const Record& record);
std::string_view turns_field(const Record& record);
std::string_view ranking_field(const Record& record);  ///< a list of several answers

/// chosen and rejected, which may be several each, to a prompt of text or messages, or whole dialogues that begin alike.
Reading read_pairs(const Record& record);
/// Two dialogues of hh-rlhf in a text each: the prompt as it stands there, or turns where the template is a chat template.
Reading read_hh(const Record& record, const ReadRules& rules);
/// Several answers with scores or ranks: a pair of every two that differ, whose margin is the difference of the scores (of ranks 0).
Reading read_ranking(const Record& record);
/// Several answers in columns that the user named, of which the label names the best: a pair with each of the others.
Reading read_choice(const Record& record, const FieldNames& names);
bool is_choice(const Record& record);  ///< whether with_usual_names() found columns of answers

bool is_oasst_tree(const Record& record);
/// One dialogue of the best-ranked replies, or a pair of every two ranked replies to one message.
Reading read_oasst_tree(const Record& record, const ReadRules& rules);

/// False where the record's label is none of those that are taken. Throws where a label says good or bad and nobody said which are taken.
bool label_is_taken(const Record& record, SampleFormat format, const ReadRules& rules);

}  // namespace collimate
