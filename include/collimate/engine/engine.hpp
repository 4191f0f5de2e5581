#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "collimate/comm/communicator.hpp"
#include "collimate/kernels/head.hpp"
#include "collimate/model/heads.hpp"

namespace collimate {

/// A micro-batch (grain) in host memory: arrays of R rows (padding rows last, with token, target and position -1) and S+1 sample offsets.
/// An empty grain means that this replica idles in this micro-step while others compute.
struct Grain {
  std::span<const std::int32_t> tokens, positions, targets, offsets;
  std::span<const std::int64_t> samples;
};

/// Memory shared by engines that never compute at the same time: reserved once, sized for the largest user.
class Workspace {
 public:
  explicit Workspace(MemoryPlan& plan) : plan_(&plan), windows_(plan, ""), adapter_windows_(plan, "adapters ") {}
  void need(std::size_t bytes) { bytes_ = std::max(bytes_, bytes); }
  void reserve() {  ///< after all engines are made, before the plan is committed
    windows_.reserve();
    adapter_windows_.reserve();
    slot_ = plan_->reserve("workspace", bytes_);
  }
  Windows& windows() { return windows_; }                   ///< of models' own parameters
  Windows& adapter_windows() { return adapter_windows_; }  ///< of what is used beside them
  Arena arena() const { return Arena(plan_->at(slot_, {static_cast<std::int64_t>(bytes_)}, DType::u8)); }
  MemoryPlan& plan() const { return *plan_; }

 private:
  MemoryPlan* plan_;
  Windows windows_, adapter_windows_;
  std::size_t bytes_ = 0;
  Slot slot_;
};

/// What an engine is used for; determines its buffers.
struct EngineUse {
  std::int64_t rows = 0;         ///< most rows of a grain, padding included
  std::int64_t most_grains = 0;  ///< most grains of an optimizer step, over all ranks; 0: the model does not learn
  std::int64_t group = 1;        ///< grains that are computed block by block, a power of two; changes no number
  std::int64_t slots = 0;        ///< sequences generated at once; 0: the model does not generate
  std::int64_t capacity = 0;     ///< most tokens of a generated sequence, prompt included
  bool holds_rollouts = true;    ///< sharded values are gathered whole for a rollout, not for each token
  RecomputePlan recompute = {};
  LoraConfig lora = {};            ///< with adapters only they (and a value head) learn
  DType values = DType::f32;       ///< in which the model's own parameters rest; adapters are f32
  ParameterStore* frozen = nullptr;  ///< use another engine's frozen parameters instead of an own copy
  std::optional<Sweeps> sweeps = {};  ///< of a head that learns; absent: once where the device is the host
};

/// How an optimizer step treats dropout.
struct Dropout {
  double probability = 0;
  std::uint64_t seed = 0;
  std::int64_t step = 0;
  double adapters = 0;  ///< probability of an adapter's input
};

enum class Finish { end_of_text, length };

/// One sequence to continue.
struct Prompt {
  std::vector<std::int32_t> tokens;
  std::uint64_t sample = 0;  ///< global number: the key of its random numbers
};

struct Continuation {
  std::vector<std::int32_t> tokens;  ///< the end-of-text token included
  std::vector<float> logprobs;       ///< as kernels::sample_tokens gives them; only to report (numerics contract R5)
  Finish finish = Finish::length;
};

struct GenerateOptions {
  kernels::Sampling sampling;
  std::int64_t max_new = 0;
  std::vector<std::int32_t> stop;  ///< end-of-text tokens
  RandomKey key{0, Purpose::sampling};
  std::uint32_t round = 0;  ///< third part of the key: the PPO iteration
  std::function<void(std::size_t prompt, std::int32_t token)> each = {};  ///< told of every token as it is drawn, if there is one
};

/// Gives per-token gradients of a loss on values; rows of the whole grain (0 in padding rows).
using ValueLoss = std::function<void(std::span<const float> values, std::span<float> dvalues)>;
using GrainValueLoss = std::function<void(std::size_t grain, std::span<const float> values, std::span<float> dvalues)>;
/// What a forward gives for a grain: a number (or two) per row.
using EachScored = std::function<void(std::size_t grain, std::span<const float> logprob, std::span<const float> entropy)>;
using EachValued = std::function<void(std::size_t grain, std::span<const float> values)>;

/// Runs one model: the same class for actor, critic, reference and reward model. On a grid it runs this rank's part of it: all ranks of a
/// replica make the same calls with the same grains; results and losses appear on the last stage only.
class Engine {
 public:
  Engine(const std::string& name, const ModelConfig& config, Head head, const Division& division, const EngineUse& use,
         Workspace& workspace);
  void prepare();  ///< after the plan is committed: lays out the buffers

  ParameterStore& store() { return *store_; }  ///< the model's own parameters
  const ParameterStore& store() const { return *store_; }
  bool owns_store() const { return own_ != nullptr; }      ///< false: they are another engine's
  ParameterStore* adapters() { return adapters_.get(); }  ///< theirs and a value head beside frozen parameters; null: there are none
  ParameterStore& learning() { return adapters_ ? *adapters_ : *store_; }  ///< what an optimizer steps
  const ParameterStore& learning() const { return adapters_ ? *adapters_ : *store_; }
  const Transformer& transformer() const { return transformer_; }

  /// Forward only, several grains through the pipeline. Policy: log-probability and entropy of each row's target. Value head: a number per row.
  void score(std::span<const Grain> grains, float temperature, const EachScored& each);
  void values(std::span<const Grain> grains, const EachValued& each);
  void score(const Grain& grain, float temperature, std::span<float> logprob, std::span<float> entropy);  ///< one grain, one stage
  void values(const Grain& grain, std::span<float> values);                                              ///< one grain, one stage

  /// One optimizer step's gradient: begin_step with the number of grains over all replicas, forward_backward with those of this replica
  /// (division().grains) in order, finish_step.
  void begin_step(std::int64_t grains) { learning().begin_step(grains); }
  void forward_backward(std::span<const Grain> grains, float temperature, const Dropout& dropout, const GrainTokenLoss& loss);
  void forward_backward(std::span<const Grain> grains, const Dropout& dropout, const GrainValueLoss& loss);
  void forward_backward(const Grain& grain, float temperature, const Dropout& dropout, const TokenLoss& loss);  ///< one grain
  void forward_backward(const Grain& grain, const Dropout& dropout, const ValueLoss& loss);                     ///< one grain
  void finish_step() { learning().finish_step(); }

  /// Bytes that go between host and device, about: of an optimizer step over so many grains of this replica, of a scoring. A token of a generation
  /// brings as much as the scoring of one grain.
  double traffic_of_step(std::int64_t grains) const;
  double traffic_of_scoring(std::int64_t grains) const;

  /// Continues every prompt; a sample's tokens do not depend on the others or on the number of slots.
  std::vector<Continuation> generate(std::span<const Prompt> prompts, const GenerateOptions& how);
  /// Logits of all rows of a grain (tests and inspection): rows x V.
  std::vector<float> logits(const Grain& grain);

 private:
  struct GrainBuffers {
    Tensor tokens, positions, targets, samples, offsets;
  };
  /// A grain between its forward and its backward.
  struct InFlight {
    GrainBuffers buffers;
    Activations activations;
    GrainView view;
    std::unique_ptr<Transfer> sent;  ///< to the next stage
  };
  using Group = std::vector<InFlight>;
  struct Learn {
    std::vector<Group> flights;  ///< groups of grains
    PolicyHead::Buffers head;
    std::vector<Tensor> dhidden;  ///< of each grain of a group
    Tensor values, dvalues;
    std::vector<float> host_values, host_dvalues;
    std::vector<std::unique_ptr<Transfer>> sent;  ///< of each grain, to the stage before
  };
  struct Score {
    Group grains;
    PolicyHead::Buffers head;
    Tensor values;
  };
  struct Generate {
    KvCache cache;
    GrainBuffers grain;
    Activations activations;
    Tensor hidden, logits, scratch;                       // [B,C], [B,V], flat
    Tensor tokens, slots, positions, uniforms, logprobs;  // [B]
    Tensor drawn;                                         // [B], tokens that come from the last stage
    std::unique_ptr<Transfer> sent;
  };
  struct Active {
    std::size_t index;
    std::int32_t slot, length, last;
  };
  ModelWeights weights() { return {*store_, adapters_.get()}; }
  Staging& staging() const { return workspace_->plan().staging(); }
  GrainBuffers take_grain(Arena& arena, std::int64_t rows) const;
  Learn take_learn(Arena& arena) const;
  Score take_score(Arena& arena) const;
  Generate take_generate(Arena& arena) const;
  bool attempt(const std::function<void()>& step);
  void tell();
  void check(const Grain& grain) const;
  std::vector<Grain> checked(std::span<const Grain> grains);
  GrainView upload(const GrainBuffers& buffers, const Grain& grain);
  Pass learning_pass(const GrainView& grain, const Dropout& dropout);
  std::unique_ptr<Transfer> send_stage(Tensor data, int to);
  void receive_stage(Tensor data, int from);
  bool streams() const { return store_->streams() || (adapters_ && adapters_->streams()); }
  void make_head();
  int value_head_unit() const { return static_cast<int>(transformer_.head_layout().units_of(transformer_.head_place()).begin); }
  Lease fetch_value_head() { return transformer_.head_store(weights()).fetch(value_head_unit()); }
  void announce(const Route& route);
  void forget_routes();
  /// What the last stage does with a group, whose first grain has this place in the list given; `group` is what a PolicyHead takes.
  using GroupHead = std::function<void(std::size_t first, std::span<const PolicyHead::Grain> group)>;
  std::int64_t group_of(std::int64_t grains) const { return std::clamp<std::int64_t>(grains, 1, use_.group); }
  void score_all(std::span<const Grain> grains, const GroupHead& head);
  void forward(Group& flight, std::span<const Grain> grains, const Dropout& dropout);
  std::vector<PolicyHead::Grain> head_grains(const Group& flight, std::span<const Grain> grains) const;
  void train(std::span<const Grain> grains, const Dropout& dropout, const GroupHead& head);
  void train_backward(Group& flight, std::size_t first, std::span<const Grain> grains, const Dropout& dropout, const GroupHead& head);
  class Sequences;
  void check(std::span<const Prompt> prompts, const GenerateOptions& how) const;
  void prefill(std::span<const Active> work, std::span<const Prompt> prompts);
  void decode(std::span<Active> work);
  bool gathers() const { return store_->gathers() || (adapters_ && adapters_->gathers()); }
  bool any_replica(bool mine) const;
  void take_part();
  std::vector<std::int32_t> draw(std::span<const Active> work, const GenerateOptions& how, std::span<const Prompt> prompts,
                                 std::vector<Continuation>& out);
  void send_drawn(Sequences& sequences);
  void share(std::int64_t sequences, const std::function<void(std::int64_t begin, std::int64_t count)>& body) const;

  EngineUse use_;
  Workspace* workspace_;
  Stream* stream_;
  Division division_;
  Transformer transformer_;
  Route scoring_, backward_;  // forward, then the head; the head, then backward
  std::unique_ptr<ParameterStore> own_, adapters_;
  ParameterStore* store_;
  std::optional<PolicyHead> policy_;
  std::optional<ValueHead> value_;
  Learn learn_;
  Score score_;
  std::optional<LateError> late_;      // of the work that is under way
  std::vector<std::int32_t> padding_;  // -1 for each of use_.rows, once a grain needs it
  Generate generate_;
};

}  // namespace collimate
