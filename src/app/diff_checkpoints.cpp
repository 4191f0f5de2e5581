#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <vector>

#include "app/diff.hpp"
#include "collimate/model/transformer.hpp"
#include "collimate/rlhf/saved_models.hpp"

namespace collimate {
namespace {

using rlhf::SavedModels;

constexpr std::int64_t slice = 1 << 20;  // elements compared at a time

/// Where two tensors of one shape differ.
struct Elements {
  std::int64_t first = 0, differing = 0;
  float a = 0, b = 0;
};

std::optional<Elements> differing(const SavedModels& a, const SavedModels& b, const std::string& tensor) {
  const std::int64_t count = a.reader().find(tensor).shape.count();
  std::optional<Elements> found;
  std::vector<float> x, y;
  for (std::int64_t begin = 0; begin < count; begin += slice) {
    const std::int64_t n = std::min(slice, count - begin);
    x.resize(n), y.resize(n);
    a.reader().read(tensor, begin, n, x.data());
    b.reader().read(tensor, begin, n, y.data());
    for (std::int64_t i = 0; i < n; ++i) {
      if (std::bit_cast<std::uint32_t>(x[i]) == std::bit_cast<std::uint32_t>(y[i])) continue;
      if (!found) found = Elements{begin + i, 0, x[i], y[i]};
      ++found->differing;
    }
  }
  return found;
}

/// How many fp32 numbers the two are apart.
std::int64_t ulps(float a, float b) {
  const auto place = [](float x) {
    const auto bits = static_cast<std::int64_t>(std::bit_cast<std::uint32_t>(x));
    return bits < 0x80000000 ? bits : 0x80000000 - bits;
  };
  return std::abs(place(a) - place(b));
}

std::string describe(const std::string& tensor, const Shape& shape, const Elements& e) {
  const std::string place = shape.rank() == 2
                                ? fmt::format("row {}, column {} (element {})", e.first / shape[1], e.first % shape[1], e.first)
                                : fmt::format("element {}", e.first);
  const std::int64_t apart = ulps(e.a, e.b);
  return fmt::format("{} of shape {}: {} is {} in A and {} in B{}; {} of {} elements differ", tensor, shape.text(), place, e.a, e.b,
                     apart < 100 ? fmt::format(", {} ulp apart", apart) : "", e.differing, shape.count());
}

/// The names of a model's tensors in the order of its layout: values, then moments; then what is not in it, such as adapters.
std::vector<std::string> tensors_of(const SavedModels& saved, const std::string& model) {
  const rlhf::ModelCard card = saved.card(model);
  const auto device = make_device();
  MemoryPlan plan(*device);
  const Transformer transformer(card.config, card.head, Division{.shards = card.shards}, plan);
  std::vector<std::string> names;
  for (const char* kind : {"value", "first_moment", "second_moment"})
    for (const Parameter& parameter : transformer.layout().parameters())
      if (const std::string name = fmt::format("{}/{}/{}", model, kind, parameter.name); saved.reader().has(name)) names.push_back(name);
  const std::vector<std::string> own = names;
  for (const CheckpointTensor& tensor : saved.reader().tensors())
    if (tensor.name.starts_with(model + "/") && std::find(own.begin(), own.end(), tensor.name) == own.end()) names.push_back(tensor.name);
  return names;
}

/// Why a model of two checkpoints has no tensors to compare; "" where it has.
std::string unlike(const SavedModels& a, const SavedModels& b, const std::string& model) {
  const LoraConfig left = a.card(model).adapters.lora, right = b.card(model).adapters.lora;
  if (left.on() == right.on()) return "";
  return fmt::format(
      "the model {} of {} is of a LoRA run and holds adapters alone (lora.rank = {}), that of {} holds all its parameters: they have no tensors "
      "in common; to compare the merged weights, `collimate export` both and import them",
      model, left.on() ? "A" : "B", left.on() ? left.rank : right.rank, left.on() ? "B" : "A");
}

}  // namespace

Verdict diff_checkpoints(const std::string& a, const std::string& b, const std::string& model, const std::string& tensor) {
  const SavedModels left(a), right(b);
  std::vector<std::string> names;
  for (const std::string& name : left.models()) {
    if (!right.has(name)) return {false, fmt::format("the model {} is only in A, the checkpoint '{}'", name, a)};
    if (const std::string why = unlike(left, right, name); !why.empty()) return {false, why};
    for (const std::string& one : tensors_of(left, name)) names.push_back(one);
  }
  for (const std::string& name : right.models())
    if (!left.has(name)) return {false, fmt::format("the model {} is only in B, the checkpoint '{}'", name, b)};
  // What was asked for comes first. PPO's actor is the policy of its checkpoints; adapters are tensors of their model.
  const std::string base = model.substr(0, model.find(' '));
  for (const std::string& holder : {base, std::string(base == "actor" ? "policy" : "")})
    if (const auto asked = std::find(names.begin(), names.end(), holder + "/value/" + tensor); asked != names.end())
      std::rotate(names.begin(), asked, asked + 1);
  std::string first;
  std::int64_t compared = 0, different = 0;
  bool moments = true;
  for (const std::string& name : names) {
    if (!right.reader().has(name) && name.find("_moment/") != std::string::npos) {
      moments = false;
      continue;
    }
    if (!right.reader().has(name)) return {false, fmt::format("the tensor {} is only in A", name)};
    const Shape shape = left.reader().find(name).shape, other = right.reader().find(name).shape;
    if (!(shape == other)) return {false, fmt::format("the tensor {} has the shape {} in A and {} in B", name, shape.text(), other.text())};
    ++compared;
    if (const auto found = differing(left, right, name); found && ++different == 1) first = describe(name, shape, *found);
    if (different && !tensor.empty()) return {false, first};  // one was asked for
  }
  if (different) return {false, fmt::format("{}\n{} of {} tensors differ", first, different, compared)};
  return {true, fmt::format("equal: {} tensors{}", compared, moments ? "" : "; the optimizer's moments are only in A")};
}

}  // namespace collimate
