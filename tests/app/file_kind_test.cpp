#include "app/program.hpp"

namespace collimate::test {
namespace {

/// Whatever a command reads: a file of another kind is named with what helps, before any parser sees it.
TEST(FileKinds, AreNamedByEveryCommand) {
  const Scratch folder;
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 538090408\n";
  const std::string archive("PK\x03\x04\x14\0\0\0", 8), gguf("GGUF\x03\0\0\0", 8), page = "<!DOCTYPE html>\n<html></html>\n";
  const std::string config = R"({"model_type": "gpt2", "vocab_size": 64, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2})";
  const auto model = [&](const std::string& name, const std::string& bytes) {
    const std::string path = folder / ("model-" + name);
    std::filesystem::create_directories(path);
    put(path + "/config.json", config);
    put(path + "/" + name, bytes);
    return path;
  };
  for (const char* name : {"model.safetensors", "tokenizer.json", "tokenizer.model", "config.json"})
    expect_refusal({"import", "--model", model(name, pointer), "--output", folder / "c"}, {name, "Git LFS pointer", "git lfs pull"});
  expect_refusal({"import", "--model", model("model.safetensors", page), "--output", folder / "c"},
                 {"model.safetensors", "HTML page", "/resolve/"});
  put(folder / "m.gguf", gguf);
  expect_refusal({"generate", "--checkpoint", folder / "m.gguf", "--prompt", "a"}, {"m.gguf", "GGUF", "Hugging Face folder"});
  expect_refusal({"export", "--checkpoint", folder / "m.gguf", "--output", folder / "e"}, {"m.gguf", "GGUF"});
  put(folder / "deck.ini", archive);
  expect_refusal({"run", folder / "deck.ini"}, {"deck.ini", "zip archive", "unzip"});
  put(folder / "a.jsonl", "{\"prompt\": \"a\", \"response\": \"b\"}\n");
  put(folder / "like.h5", pointer);
  expect_refusal({"prepare", folder / "a.jsonl", "--output", folder / "o.h5", "--like", folder / "like.h5"}, {"like.h5", "git lfs pull"});
  put(folder / "tokenizer.json", gguf);
  expect_refusal({"prepare", folder / "a.jsonl", "--output", folder / "o.h5", "--tokenizer", folder / "tokenizer.json"},
                 {"tokenizer.json", "GGUF"});
  put(folder / "weights.jsonl", std::string("\x10\0\0\0\0\0\0\0{\"x\":{}}        ", 24));
  for (const auto& [file, words] : std::map<std::string, std::string>{{"like.h5", "Git LFS pointer"}, {"m.gguf", "GGUF"}, {"deck.ini", "zip archive"}}) {
    expect_refusal({"inspect", folder / file}, {file, words});
    expect_refusal({"diff", folder / file, folder / file}, {file, words});
    expect_refusal({"import", "--model", folder / file, "--output", folder / "c"}, {file, words});
    expect_refusal({"prepare", folder / "a.jsonl", "--output", folder / "o.h5", "--tokenizer", folder / file}, {file, words});
  }
  put(folder / "sft.ini", "[run]\nfolder = " + (folder / "r") + "\nstages = sft\n[sft]\ndata = " + (folder / "like.h5") + "\nsteps = 1\n");
  expect_refusal({"run", folder / "sft.ini"}, {"like.h5", "Git LFS pointer"});
}

}  // namespace
}  // namespace collimate::test
