#include "collimate/data/prepare_example.hpp"

#include <filesystem>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/data/example.hpp"
#include "collimate/data/prepare.hpp"

namespace collimate {
namespace {

/// Writes everything into a folder and says what it has written.
std::string make_example(const std::string& folder, std::int64_t vocabulary, std::uint64_t seed) {
  const std::filesystem::path place(folder);
  const auto file = [&](const std::string& name) { return (place / name).string(); };
  write_example(folder, seed);
  std::string report;
  for (const std::string name : {"sft", "heldout-sft", "preference", "heldout-preference", "prompts", "heldout-prompts"}) {
    const bool first = name == "sft";
    PrepareOptions options;
    options.inputs = {file(name + ".jsonl")};
    options.kind = DatasetKind::preference;
    if (name.ends_with("sft")) options.kind = DatasetKind::supervised;
    if (name.ends_with("prompts")) options.kind = DatasetKind::prompts;
    options.pair_groups = PairGroups::consecutive;  // its few prompts have many pairs each
    options.rules.prompt = "{prompt}\n";
    options.train_bpe = first ? vocabulary : 0;
    if (!first) options.like = file("sft.h5");
    options.output = file(name + ".h5");
    const PrepareReport done = prepare(options);
    report += fmt::format("{}: {} dataset, {}, {}\n", options.output, name_of(done.kind), counted(done.samples, "sample"), counted(done.tokens, "token"));
    report += done.vocabulary_text();
  }
  const auto tokenizer = deserialize_tokenizer(Dataset(file("sft.h5"), false).tokenizer());
  save_tokenizer(*tokenizer, folder);
  return report + fmt::format("{}: {} tokens\n", file(tokenizer->file_name()), tokenizer->vocabulary());
}

}  // namespace

std::string prepare_example(const std::string& folder, std::int64_t vocabulary, std::uint64_t seed) {
  require(!folder.empty(), "the folder for the example is empty: name one");
  const PartialFolder partial(folder);
  const auto named = [&](const std::string& text) { return replace_all(text, partial.path(), folder); };
  try {
    const std::string report = make_example(partial.path(), vocabulary, seed);
    move_files(partial.path(), folder);
    return named(report);
  } catch (const Error& error) {
    throw Error(error.code(), named(error.what()), error.place());
  }
}

}  // namespace collimate
