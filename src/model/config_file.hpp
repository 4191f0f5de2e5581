#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "collimate/model/config.hpp"

namespace collimate {

/// A config.json, with sentences for what is missing, of the wrong type or not computed by us. It notes which keys were asked for, so that
/// the others can be looked at in the end.
class ConfigFile {
 public:
  ConfigFile(const std::string& text, const std::string& path);
  const std::string& path() const { return path_; }

  bool named(const char* key) const;  ///< also where the value is null
  bool has(const char* key) const;    ///< null is as good as absent, as in transformers
  std::int64_t size(const char* key) const;
  std::int64_t size(const char* key, std::int64_t otherwise) const;
  double number(const char* key, double otherwise) const;
  bool flag(const char* key, bool otherwise) const;
  std::string text(const char* key, const std::string& otherwise) const;
  std::optional<std::int64_t> id(const char* key) const;  ///< a token id; of a list the first one
  std::size_t listed(const char* key) const;              ///< how many entries a list has; another value is one
  std::vector<std::string> texts(const char* key) const;  ///< a list of texts, empty where the key is absent
  /// Refuses a key with any value but the allowed ones (an absent key and null are always allowed).
  void only(const char* key, const std::vector<nlohmann::json>& allowed) const;

  /// rope_theta and the scaling, in the form of transformers 5 (rope_parameters) or of earlier versions (rope_theta and rope_scaling).
  void read_rope(ModelConfig& config) const;

  /// Refuses every key that was neither asked for, nor is known to change no number, nor has a value that turns it off.
  void refuse_unknown(const std::vector<std::string>& harmless) const;

 private:
  std::string path_;
  nlohmann::json json_;
  mutable std::set<std::string> asked_;
};

/// Adds what read_rope reads, in the form that every version of transformers understands.
void write_rope(const ModelConfig& config, nlohmann::json& json);

}  // namespace collimate
