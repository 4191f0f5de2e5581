#pragma once
#include <memory>
#include <string>
#include <vector>

#include "collimate/io/checkpoint.hpp"
#include "collimate/io/inspect.hpp"
#include "collimate/params/store.hpp"
#include "collimate/rlhf/model_card.hpp"
#include "collimate/rlhf/text_rules.hpp"

namespace collimate::rlhf {

/// A published checkpoint with models in it, opened for reading.
///
/// Tensors are named <model>/value/<parameter> and, where a run can go on from it, <model>/first_moment/... and <model>/second_moment/....
/// The manifest's meta is {"models": {name: card}, "tokenizer", "template", "settled", "ends", "bos", "generation", "chat_template", "stage",
/// "complete", "progress", "deck", "build"}.
class SavedModels {
 public:
  /// base: where to look for the base of a model with adapters that is not where the checkpoint says.
  explicit SavedModels(const std::string& folder, std::string base = "");
  ~SavedModels();
  const CheckpointReader& reader() const { return reader_; }
  std::vector<std::string> models() const;
  bool has(const std::string& model) const;
  ModelCard card(const std::string& model) const;  ///< throws, naming those that exist
  TextRules text_rules() const;
  std::string stage() const;
  bool complete() const;                ///< the stage had ended
  bool can_go_on() const;               ///< it holds the optimizer's moments
  std::string progress() const;         ///< JSON object, what the stage's trainer wrote
  std::string instruction_set() const;  ///< of the program that wrote it; "" if unknown
  std::string deck() const;
  /// Reads everything; throws where a model's parameter is missing or has another shape, or a checksum does not fit.
  void verify() const;
  /// Fills a store's values (and moments, if asked). The store's head may be another than the saved one's: then parameters that the
  /// checkpoint lacks keep what they hold. Adapters are merged into their base: W + scale (B A), where B A is summed by fused
  /// multiply-adds in fp32, the ranks in order; a base with another hash than theirs is refused. Collective.
  void load(const std::string& model, ParameterStore& store, bool moments = false) const;
  /// Of a model that was saved as adapters: fills a store with their base, and one with them; `base` are the parameters that they go on
  /// with. Collective.
  void load_base(const std::string& model, ParameterStore& base) const;
  void load_adapters(const std::string& model, ParameterStore& adapters, const ParameterStore& base, bool moments) const;
  /// Fills the value head of a store of adapters, where the model has one.
  void load_head(const std::string& model, ParameterStore& adapters) const;

 private:
  struct Meta;
  void check_shape(const std::string& tensor, const Shape& wanted) const;
  void fill(const std::string& model, ParameterStore& store, Kind kind) const;
  std::string base_folder(const AdapterNote& note) const;
  void check_base(const AdapterNote& note, const ParameterStore& base) const;
  void merge(const std::string& model, const LoraConfig& lora, ParameterStore& store) const;

  std::string name_, base_;
  CheckpointReader reader_;
  std::unique_ptr<const Meta> meta_;
};

/// The meta of a checkpoint in sections for people: of a tokenizer its kind, size and fingerprint, the deck as it was written. What each
/// rank says of itself, its build, is left to the ranks.
Sections describe_meta(const std::string& meta);

/// The models a stage leaves behind for others: "policy" of sft and ppo, "reward" of reward, "critic" of ppo.
std::string main_model_of(const SavedModels& saved, Head head);

}  // namespace collimate::rlhf
