#include <algorithm>
#include <map>
#include <set>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/model/hugging_face.hpp"

// From the names of a file's tensors to those that transformers writes.

namespace collimate {
namespace {

/// What frameworks put into the names of a module that they wrap, as a part between points.
struct Wrapper {
  const char *part, *origin;
};
constexpr Wrapper wrappers[] = {{"_orig_mod", "torch.compile"},
                                {"module", "data parallelism"},
                                {"_fsdp_wrapped_module", "FSDP"},
                                {"_checkpoint_wrapped_module", "activation checkpointing"},
                                {"_forward_module", "Lightning"}};

std::vector<std::string> parts_of(const std::string& name) {
  std::vector<std::string> parts(1);
  for (const char c : name)
    if (c == '.')
      parts.emplace_back();
    else
      parts.back() += c;
  return parts;
}

/// The name without wrappers' parts; `seen` gets those that were there.
std::string unwrapped(const std::string& name, std::set<std::string>& seen) {
  std::vector<std::string> kept;
  for (const std::string& part : parts_of(name)) {
    const auto wrapper = std::ranges::find_if(wrappers, [&](const Wrapper& each) { return part == each.part; });
    if (wrapper == std::end(wrappers))
      kept.push_back(part);
    else
      seen.insert(fmt::format("{}. ({})", wrapper->part, wrapper->origin));
  }
  return join(kept, ".");
}

std::string without_usual_prefix(const std::string& name) {
  for (const char* prefix : {"transformer.", "model."})
    if (name.starts_with(prefix)) return name.substr(std::string_view(prefix).size());
  return name;
}

/// What stands before the final norm's name, which every file has once: "model.", "", "actor.model." ...
std::string prefix_in(const std::vector<std::string>& names, const std::vector<HuggingFaceTensor>& wanted) {
  const auto norm = std::ranges::find(wanted, std::vector<std::string>{"final_norm.gain"}, &HuggingFaceTensor::parts);
  ensure(norm != wanted.end(), "a model without a final norm");
  const std::string stem = without_usual_prefix(norm->name);
  const std::string* shortest = nullptr;
  for (const std::string& name : names)
    if ((name == stem || name.ends_with("." + stem)) && (!shortest || name.size() < shortest->size())) shortest = &name;
  return shortest ? shortest->substr(0, shortest->size() - stem.size()) : "";
}

/// Heads stand one level above the rest: "lm_head.weight" beside "model.norm.weight".
std::string without_prefix(const std::string& name, const std::string& prefix) {
  if (name.starts_with(prefix)) return name.substr(prefix.size());
  const std::size_t point = prefix.find_last_of('.', prefix.size() < 2 ? 0 : prefix.size() - 2);
  const std::string outer = point == std::string::npos ? "" : prefix.substr(0, point + 1);
  return name.starts_with(outer) ? name.substr(outer.size()) : name;
}

/// Buffers, which hold no parameters: masks ("h.3.attn.bias" is one, "h.3.attn.c_attn.bias" is not), rotary tables, positions.
bool is_buffer(const std::string& name) {
  static const std::set<std::string> buffers{"inv_freq",    "original_inv_freq", "cos_cached",     "sin_cached",     "cos_cache",
                                             "sin_cache",   "_cos_cached",       "_sin_cached",    "freqs_cis",      "freqs",
                                             "masked_bias", "causal_mask",       "attn_mask",      "attention_mask", "mask",
                                             "tril",        "position_ids",      "cache_position", "_float_tensor"};
  return name.ends_with(".attn.bias") || buffers.contains(parts_of(name).back());
}

constexpr const char* value_heads[] = {"score",       "v_head.summary", "v_head", "value_head", "value_head.summary",
                                       "reward_head", "regression_head"};

bool is_value_head(const std::string& name) {
  return std::ranges::any_of(value_heads, [&](const std::string& head) { return name == head + ".weight" || name == head + ".bias"; });
}

bool ends_in(const std::string& name, const std::string& end) { return name == end || name.ends_with("." + end); }

/// The names by which tensors are looked up, of a file's own.
std::map<std::string, std::size_t> places_of(const FoundTensors& found, const std::vector<HuggingFaceTensor>& wanted,
                                             const std::string& path, std::vector<std::string>& notes) {
  std::set<std::string> seen;
  std::vector<std::string> names;
  for (const auto& [name, shape] : found) {
    require(name.find("lora_") == std::string::npos && name.find(".base_layer.") == std::string::npos,
            "{} holds the tensor {}: this is a model with adapters that were not merged; merge them (merge_and_unload), or save the "
            "adapters alone",
            path, name);
    names.push_back(unwrapped(name, seen));
  }
  const std::string prefix = prefix_in(names, wanted);
  if (!seen.empty())
    notes.push_back(fmt::format("the names in {} have {} in them, which was left out", path, join({seen.begin(), seen.end()}, ", ")));
  if (!prefix.empty() && prefix != "model." && prefix != "transformer.")
    notes.push_back(fmt::format("the names in {} begin with {}, which was left out", path, prefix));
  std::map<std::string, std::size_t> places;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto [place, is_new] = places.emplace(without_usual_prefix(without_prefix(names[i], prefix)), i);
    require(is_new, "{} holds both {} and {}, which name the same tensor", path, found[place->second].first, found[i].first);
  }
  return places;
}

std::string lacks(const HuggingFaceTensor& tensor, const std::string& path) {
  if (tensor.name == "lm_head.weight")
    return fmt::format(
        "{} lacks the tensor lm_head.weight of shape {}: is it complete? Where the head is the embedding, config.json needs "
        "\"tie_word_embeddings\": true",
        path, tensor.shape.text());
  return fmt::format("{} lacks the tensor {} of shape {}: is it complete, and does config.json belong to it?", path, tensor.name,
                     tensor.shape.text());
}

void require_shape(const HuggingFaceTensor& tensor, const std::string& name, const Shape& shape, const std::string& path) {
  if (shape == tensor.shape) return;
  require(tensor.parts[0] != "value_head.weight",
          "{}: the value head {} has the shape {}; one of a reward model gives one number (num_labels 1), so it has the shape {}", path,
          name, shape.text(), tensor.shape.text());
  fail("{}: the tensor {} has the shape {}, but config.json asks for {}", path, name, shape.text(), tensor.shape.text());
}

}  // namespace

HuggingFaceMatch match_hugging_face(const std::vector<HuggingFaceTensor>& wanted, const FoundTensors& found, const std::string& path) {
  HuggingFaceMatch match;
  std::map<std::string, std::size_t> places = places_of(found, wanted, path, match.notes);
  const bool tied =
      std::ranges::none_of(wanted, [](const auto& each) { return each.parts[0] == "head.weight" || is_value_head(each.name); });
  for (const HuggingFaceTensor& tensor : wanted) {
    auto place = places.find(without_usual_prefix(tensor.name));
    if (place == places.end() && tied && tensor.parts[0] == "embedding.weight") place = places.find("lm_head.weight");
    require(place != places.end(), "{}", lacks(tensor, path));
    require_shape(tensor, found[place->second].first, found[place->second].second, path);
    match.places.push_back(place->second);
    places.erase(place);
  }
  std::set<std::string> buffers;
  for (const auto& [name, index] : places) {
    const std::string& theirs = found[index].first;
    if (name == "lm_head.weight" && tied) {
      match.tied_head = index;
    } else if (is_buffer("." + name)) {
      buffers.insert(parts_of(name).back());
    } else {
      require(name == "lm_head.weight" || is_value_head(name), "{} holds the tensor {} of shape {}, which this model does not have", path,
              theirs, found[index].second.text());
      match.notes.push_back(fmt::format("the tensor {} in {} is ignored: a model here has one head", theirs, path));
    }
  }
  if (!buffers.empty())
    match.notes.push_back(
        fmt::format("buffers in {} that hold no parameters are ignored: {}", path, join({buffers.begin(), buffers.end()}, ", ")));
  return match;
}

std::optional<ValueHeadName> value_head_in(const FoundTensors& found) {
  const auto has = [&](const std::string& name) {
    return std::ranges::any_of(found, [&](const auto& tensor) { return ends_in(tensor.first, name); });
  };
  for (const std::string name : value_heads)
    if (has(name + ".weight")) return ValueHeadName{name, has(name + ".bias")};
  return std::nullopt;
}

bool has_language_head(const FoundTensors& found) {
  return std::ranges::any_of(found, [](const auto& tensor) { return ends_in(tensor.first, "lm_head.weight"); });
}

}  // namespace collimate
