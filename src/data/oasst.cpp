#include <algorithm>
#include <charconv>
#include <optional>

#include "collimate/base/error.hpp"
#include "data/answers.hpp"
#include "data/json_text.hpp"

namespace collimate {
namespace {

/// One message of a tree of OpenAssistant, with the replies to it, best ones first.
struct Node {
  Turn turn;
  std::optional<double> rank;  ///< 0: the best reply; nothing: not ranked
  std::vector<Node> replies;
};

Node node_of(const Record& record, const Field& field) {
  require(field.is_object(), "{}: a message of the tree is {} where an object with 'text', 'role' and 'replies' is expected",
          record.place(), field.text.substr(0, 40));
  const auto members = json_members(field.text);
  const auto text = members.find("text"), role = members.find("role"), rank = members.find("rank"), replies = members.find("replies");
  require(text != members.end() && !text->second.is_json && role != members.end() && !role->second.is_json,
          "{}: a message of the tree needs the texts 'text' and 'role'", record.place());
  require(role->second.text == "prompter" || role->second.text == "assistant",
          "{}: a message of the tree has the role '{}'; it is prompter or assistant", record.place(), role->second.text);
  Node node{{role->second.text == "prompter" ? "human" : "assistant", text->second.text, std::nullopt}, std::nullopt, {}};
  if (rank != members.end() && !rank->second.is_null()) {
    double value = 0;
    const std::string& digits = rank->second.text;
    const auto [stop, code] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    require(code == std::errc() && stop == digits.data() + digits.size(), "{}: the rank '{}' of a message is not a number", record.place(),
            digits);
    node.rank = value;
  }
  if (replies != members.end() && replies->second.is_list())
    for (const Field& reply : json_elements(replies->second.text)) {
      const auto of = json_members(reply.text);
      const auto deleted = of.find("deleted");
      if (deleted == of.end() || deleted->second.text != "true") node.replies.push_back(node_of(record, reply));
    }
  std::stable_sort(node.replies.begin(), node.replies.end(),
                   [](const Node& a, const Node& b) { return a.rank.value_or(1e9) < b.rank.value_or(1e9); });
  return node;
}

/// A pair of every two ranked answers to one question, for all questions of the tree.
void add_pairs(const Node& node, std::vector<Turn>& before, std::vector<Example>& out) {
  before.push_back(node.turn);
  for (std::size_t i = 0; i < node.replies.size(); ++i)
    for (std::size_t j = i + 1; j < node.replies.size(); ++j) {
      const Node &good = node.replies[i], &bad = node.replies[j];
      if (node.turn.role != "human" || !good.rank || !bad.rank || *good.rank == *bad.rank || good.turn == bad.turn) continue;
      Example pair;
      pair.turns = before;
      pair.chosen = good.turn.text;
      pair.rejected = bad.turn.text;
      out.push_back(std::move(pair));
    }
  for (const Node& reply : node.replies) add_pairs(reply, before, out);
  before.pop_back();
}

}  // namespace

bool is_oasst_tree(const Record& record) {
  const auto found = record.fields.find("prompt");
  return found != record.fields.end() && found->second.is_object() && json_members(found->second.text).contains("replies");
}

Reading read_oasst_tree(const Record& record, const ReadRules& rules) {
  const DatasetKind kind = rules.kind.value_or(DatasetKind::supervised);
  const Node root = node_of(record, record.field("prompt"));
  for (const std::string_view name : {"message_tree_id", "tree_state"})
    if (record.has(name)) record.field(name);  // nothing to be learned
  Reading out;
  if (kind == DatasetKind::preference) {
    std::vector<Turn> before;
    add_pairs(root, before, out.examples);
    if (out.examples.empty()) out.left_out = "no two answers of the tree are ranked";
    return out;
  }
  Example& example = out.examples.emplace_back();
  example.turns = {root.turn};
  if (kind == DatasetKind::prompts) return out;
  const Node* node = &root;
  while (!node->replies.empty()) {
    node = &node->replies.front();
    example.turns.push_back(node->turn);
  }
  while (!example.turns.empty() && example.turns.back().role != "assistant") example.turns.pop_back();
  if (example.turns.empty()) {
    out.left_out = "nobody has answered the question of the tree";
    out.examples.clear();
    return out;
  }
  example.response = example.turns.back().text;
  example.turns.pop_back();
  for (Turn& turn : example.turns)
    if (rules.learn == Learn::all && turn.role == "assistant") turn.learned = true;
  return out;
}

}  // namespace collimate
