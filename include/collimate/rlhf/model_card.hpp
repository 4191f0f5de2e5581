#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "collimate/data/dataset.hpp"
#include "collimate/engine/engine.hpp"
#include "collimate/io/checkpoint.hpp"
#include "collimate/io/inspect.hpp"
#include "collimate/rlhf/statistics.hpp"

namespace collimate::rlhf {

/// What a checkpoint that holds a model's adapters alone says of them, and of the base: the frozen parameters beside which they learned.
struct AdapterNote {
  LoraConfig lora;          ///< rank 0: the checkpoint holds the whole model
  std::string base;         ///< checkpoint of the base, seen from this one's folder, or absolute; empty: random numbers
  std::string base_model;   ///< its name there
  std::int64_t seed = 0;    ///< of the random numbers
  std::string base_hash;    ///< see base_hash()
};

/// What a checkpoint says of one of its models, beside the weights.
struct ModelCard {
  ModelConfig config;
  Head head = Head::policy;
  int shards = 1;                    ///< virtual tensor shards that the weights were trained with
  ScoreNormalisation normalisation;  ///< of a reward model; of a policy of PPO: of the scores that it learned from
  std::string scorer = {};           ///< of a policy of PPO: what gave these scores, see ScoreSource::name()
  AdapterNote adapters = {};
  double init_std = 0;  ///< model.init_std of the random weights that it began with
};

/// Fills a store with random weights. init_std 0: each matrix as its layers say, 1/sqrt(inputs). Otherwise as the families' own programs
/// (transformers, GPT2PreTrainedModel): init_std everywhere, heads and tables too, but init_std / sqrt(2 layers) where a matrix writes into the
/// residual stream (output, down). Adapters start as ever.
void random_weights(ParameterStore& store, const ModelCard& card, std::uint64_t seed);

/// How text becomes tokens and back: one for all models of a checkpoint.
struct TextRules {
  std::string tokenizer;  ///< Tokenizer::serialize(); empty: the model has none
  Template rules;
  bool settled = true;  ///< false: nobody chose the template, and the first dataset brings it (an import without a template's options)
  std::vector<std::int32_t> ends = {};  ///< all ids that the imported folder named as ends of text; what is learned ends with the tokenizer's EOS
  std::optional<std::int32_t> bos = {};  ///< where there is no tokenizer to name it
  std::string generation = {};           ///< what generation_config.json says beside token ids, JSON or "": kept for the export
  std::string chat_template = {};  ///< the Jinja text that the imported folder had, or "": kept for the export
  bool has_tokenizer() const { return !tokenizer.empty(); }
  /// What ends a response that is sampled: `ends`, and the EOS of the tokenizer, if there is one.
  std::vector<std::int32_t> stops(const Tokenizer* tokenizer) const;
  std::unique_ptr<Tokenizer> make_tokenizer() const { return deserialize_tokenizer(tokenizer); }
};

/// A published checkpoint with models in it, opened for reading.
///
/// Tensors are named <model>/value/<parameter> and, where a run can go on from it, <model>/first_moment/... and <model>/second_moment/....
/// The manifest's meta is {"models": {name: card}, "tokenizer", "template", "settled", "ends", "generation", "chat_template", "stage", "complete", "progress", "build"}.
class SavedModels {
 public:
  /// base: where to look for the base of a model with adapters that is not where the checkpoint says.
  explicit SavedModels(const std::string& folder, std::string base = "");
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
  /// Of a model that was saved as adapters: fills a store with their base, and one with them; `base` are the parameters that they go on with.
  /// Collective.
  void load_base(const std::string& model, ParameterStore& base) const;
  void load_adapters(const std::string& model, ParameterStore& adapters, const ParameterStore& base, bool moments) const;
  /// Fills the value head of a store of adapters, where the model has one.
  void load_head(const std::string& model, ParameterStore& adapters) const;

 private:
  void check_shape(const std::string& tensor, const Shape& wanted) const;
  void fill(const std::string& model, ParameterStore& store, Kind kind) const;
  std::string base_folder(const AdapterNote& note) const;
  void check_base(const AdapterNote& note, const ParameterStore& base) const;
  void merge(const std::string& model, const LoraConfig& lora, ParameterStore& store) const;

  std::string name_, base_;
  CheckpointReader reader_;
  std::string meta_;
};

/// The meta of a checkpoint in sections for people: of a tokenizer its kind, size and fingerprint, the deck as it was written. What each
/// rank says of itself, its build, is left to the ranks.
Sections describe_meta(const std::string& meta);

/// What to save.
struct ModelToSave {
  std::string name;  ///< "policy" or "reward", "actor", "critic" ...
  ModelCard card;
  const ParameterStore* store = nullptr;
  bool moments = false;
};

/// What a checkpoint holds beside its models.
struct CheckpointNotes {
  std::string stage;
  bool complete = false;
  std::string progress = "{}";  ///< JSON object
  std::string deck;             ///< the part of the resolved deck that defines the numbers
  std::string build = "{}";     ///< JSON object: program, processor, instruction_set, libraries
  TextRules text;
};

/// Every rank writes its share of every tensor; rank 0 publishes. Collective; errors are agreed on.
void save_models(const std::string& folder, const std::vector<ModelToSave>& models, const CheckpointNotes& notes, Communicator& ranks);

/// A hash of a model's parameters but those of its head, as text: equal for policies and reward models with the same blocks. Collective.
std::string base_hash(const ParameterStore& store);

/// The value head becomes gain * head + bias, so that its values do: a critic that starts from a reward model starts at its normalised
/// score (gain and bias of the normalisation), one made of a policy at 0 (gain and bias 0).
void scale_value_head(ParameterStore& store, double gain, double bias);

/// The models a stage leaves behind for others: "policy" of sft and ppo, "reward" of reward, "critic" of ppo.
std::string main_model_of(const SavedModels& saved, Head head);

}  // namespace collimate::rlhf
