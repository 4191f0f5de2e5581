#include <gtest/gtest.h>

#include "app/model_folder.hpp"

namespace collimate::test {
namespace {

/// What `collimate diff` prints of two paths, which must end with this code.
std::string diff(const std::string& a, const std::string& b, int code) {
  const Outcome outcome = collimate({"diff", a, b});
  EXPECT_EQ(outcome.code, code) << outcome.out << outcome.err;
  return outcome.out;
}

void expect_parts(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(text.find(part), std::string::npos) << "no '" << part << "' in: " << text;
}

/// A run folder of three steps of SFT and one iteration of PPO, written by hand; the third step is hashed.
struct HandRun {
  std::string metrics = R"({"stage":"sft","step":1,"loss":3.5,"gradient_norm":1}
{"stage":"sft","step":2,"loss":3.25,"gradient_norm":1}
{"stage":"sft","step":3,"loss":3,"gradient_norm":1,"state_hash":"01"}
{"stage":"ppo","iteration":1,"kl":0.5}
)";
  std::string hashes = R"({"stage":"sft","step":3,"phase":"gradient","model":"policy","tensors":{"z":"0a","b":"0b","c":"0c"}}
{"stage":"sft","step":3,"phase":"value","model":"policy","tensors":{"z":"1a","b":"1b","c":"1c"}}
{"stage":"ppo","step":1,"update":1,"phase":"gradient","model":"critic","tensors":{"z":"2a"}}
)";
  std::string samples = R"({"stage":"ppo","iteration":1,"sample":7,"response":"yes"}
{"stage":"evaluate","iteration":1,"sample":0,"response":"no"}
)";
  std::string summary = "{\n  \"sft.seconds\": 1,\n  \"sft.state_hash\": \"01\"\n}\n";
  HandRun with(std::string HandRun::*file, const std::string& from, const std::string& to) const {
    HandRun other = *this;
    std::string& text = other.*file;
    EXPECT_NE(text.find(from), std::string::npos);
    text.replace(text.find(from), from.size(), to);
    return other;
  }
  void save(const std::string& path) const {
    put(path + "/metrics.jsonl", metrics);
    put(path + "/hashes.jsonl", hashes);
    put(path + "/samples.jsonl", samples);
    put(path + "/summary.json", summary);
    put(path + "/deck.ini", "[run]\nfolder = " + path + "\nseed = 1\n");
  }
};

TEST(Diff, NamesWhatWasComputedFirst) {
  const Scratch scratch;
  const HandRun run;
  run.save(scratch / "a");
  const auto against = [&](const HandRun& other, int code = 1) {
    other.save(scratch / "b");
    return diff(scratch / "a", scratch / "b", code);
  };
  expect_parts(against(run, 0), {"equal: 9 lines of metrics, samples and hashes"});
  // Times are not the same in every run; the last state is.
  against(run.with(&HandRun::summary, "1,", "2,"), 0);
  expect_parts(against(run.with(&HandRun::summary, "\"01\"", "\"02\"")),
               {"first difference: end of the run, sft.state_hash in summary.json: \"01\" in A, \"02\" in B"});
  expect_parts(against(run.with(&HandRun::metrics, "3.25", "3.5")),
               {"first difference: sft step 2, loss: 3.25 in A, 3.5 in B", "run both with --run.hash_every=1", "--sft.checkpoint_every=1"});
  // The gradient comes before its norm and the values, in the order of the layout.
  const HandRun gradient = run.with(&HandRun::hashes, "\"0b\",\"c\":\"0c\"", "\"0d\",\"c\":\"0e\"");
  expect_parts(against(gradient), {"first difference: sft step 3, gradient of policy: b, and 1 more of 3 tensors\n"});
  expect_parts(
      against(gradient.with(&HandRun::metrics, "3,\"gradient_norm\":1", "3,\"gradient_norm\":2").with(&HandRun::hashes, "1a", "1f")),
      {"first difference: sft step 3, gradient of policy: b, and 1 more of 3 tensors\n  then value of policy: z\n  then gradient_norm: 1 "
       "in A, 2 in B"});
  expect_parts(against(gradient.with(&HandRun::metrics, "\"loss\":3,", "\"loss\":4,")),
               {"first difference: sft step 3, loss: 3 in A, 4 in B\n  then gradient of policy: b"});
  // An earlier step without hashes points to the next that has them.
  expect_parts(
      against(gradient.with(&HandRun::metrics, "3.25", "3.5")),
      {"first difference: sft step 2, loss", "The next step at which both hashed tensors that differ: sft step 3, gradient of policy: b"});
  expect_parts(against(run.with(&HandRun::samples, "yes", "yep").with(&HandRun::hashes, "2a", "2b").with(&HandRun::metrics, "0.5", "1")),
               {"first difference: ppo iteration 1, sample 7, response: \"yes\" in A, \"yep\" in B\n  then gradient of critic (update 1): "
                "z\n  then kl: 0.5 in A, 1 in B"});
  expect_parts(against(run.with(&HandRun::samples, "\"no\"", "\"na\"")),
               {"first difference: ppo iteration 1, sample 0, response: \"no\" in A"});
}

TEST(Diff, RunsOfOtherLengthsDecksAndHashedSteps) {
  const Scratch scratch;
  const HandRun run;
  run.save(scratch / "a");
  HandRun other = run.with(&HandRun::metrics, ",\"state_hash\":\"01\"", "");
  other.hashes.clear();
  other.save(scratch / "b");
  put(scratch / "b/deck.ini", "[run]\nfolder = b\nseed = 2\n");
  expect_parts(diff(scratch / "a", scratch / "b", 0), {"The decks differ: run.seed is '1' in A and '2' in B\nequal: "});
  other.metrics.resize(other.metrics.find("{\"stage\":\"sft\",\"step\":3"));
  other.samples.clear();
  other.save(scratch / "b");
  expect_parts(diff(scratch / "a", scratch / "b", 1), {"first difference: sft step 3 is only in A; all before it is equal"});
  expect_parts(diff(scratch / "b", scratch / "a", 1), {"first difference: sft step 3 is only in B"});
}

TEST(Diff, Checkpoints) {
  const Scratch scratch;
  put_model(scratch / "one", small_gpt2());
  put_model(scratch / "two", small_gpt2());
  std::string bytes = bytes_of(scratch / "two/model.safetensors");
  bytes[bytes.size() - 4] = static_cast<char>(bytes[bytes.size() - 4] ^ 1);  // the last bit of the last tensor's last element
  put(scratch / "two/model.safetensors", bytes);
  put_model(scratch / "three", small_llama());
  for (const std::string name : {"one", "two", "three"})
    printed({"import", "--model", scratch / name, "--output", scratch / (name + "-c")});
  expect_parts(diff(scratch / "one-c", scratch / "one-c", 0), {"equal: "});
  expect_parts(diff(scratch / "one-c", scratch / "two-c", 1), {"policy/value/", ", 1 ulp apart; 1 of ", "elements differ\n1 of "});
  expect_parts(diff(scratch / "one-c", scratch / "three-c", 1), {"has the shape [29, 24] in A and [37, 24] in B"});
  // The same two as what two runs start from: the element is found there, in the tensor that the hashes name first.
  const HandRun run =
      HandRun().with(&HandRun::hashes, "{", R"({"stage":"sft","step":0,"phase":"value","model":"policy","tensors":{"x":"0a"}}
{)");
  run.save(scratch / "a");
  run.with(&HandRun::hashes, "0a", "0b").save(scratch / "b");
  for (const auto& [path, from] : {std::pair<std::string, std::string>{"a", "one-c"}, {"b", "two-c"}}) {
    std::filesystem::create_directories(scratch / (path + "/checkpoints"));
    std::filesystem::copy(scratch / from, scratch / (path + "/checkpoints/sft"), std::filesystem::copy_options::recursive);
  }
  expect_parts(diff(scratch / "a", scratch / "b", 1),
               {"first difference: start of sft, value of policy: x\n", "In the checkpoints after step 0 (sft, sft):\n  policy/value/",
                ", 1 ulp apart; 1 of "});
}

TEST(Diff, RefusesWhatItCannotCompare) {
  const Scratch scratch;
  HandRun().save(scratch / "run");
  put(scratch / "other/file", "");
  HandRun damaged;
  damaged.metrics += "{\"stage\n";
  damaged.save(scratch / "damaged");
  expect_refusal({"diff"}, {"needs two run folders or two checkpoints"});
  expect_refusal({"diff", scratch / "run"}, {"needs two"});
  expect_refusal({"diff", scratch / "run", scratch / "nothing"}, {"nothing' does not exist"});
  expect_refusal({"diff", scratch / "run", scratch / "other"}, {"neither a run folder", "nor a checkpoint"});
  expect_refusal({"diff", scratch / "run", scratch / "damaged"}, {"line 5 of", "the file is damaged"});
  EXPECT_NE(printed({"diff", "--help"}).find("1 different"), std::string::npos);
}

}  // namespace
}  // namespace collimate::test
