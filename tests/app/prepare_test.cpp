#include <fmt/format.h>

#include <cstdlib>

#include "app/program.hpp"
#include "collimate/base/text.hpp"
#include "collimate/data/dataset.hpp"
#include "collimate/data/example.hpp"

namespace collimate::test {
namespace {

TEST(Prepare, PromptAndResponseDecodeToTheirTexts) {
  NEEDS_DATA();
  const Scratch folder;
  put(folder / "sft.jsonl", "{\"prompt\": \"Who is Lily?\", \"response\": \"a girl\"}\n{\"prompt\": \"Who?\", \"response\": \"  Tim \"}\n");
  put(folder / "pairs.jsonl", "{\"prompt\": \"Who?\", \"chosen\": \"the cat\", \"rejected\": \" a dog\"}\n");
  for (const std::string model : {"stories260K", "babyllama105", "babyllama105/tok105.bin"}) {
    for (const std::string name : {"sft", "pairs"})
      printed({"prepare", folder / (name + ".jsonl"), "--output", folder / (name + ".h5"), "--tokenizer", data("models/" + model),
               "--prompt-template", "{prompt}!"});
    const Dataset sft(folder / "sft.h5"), pairs(folder / "pairs.h5");
    const auto tokenizer = deserialize_tokenizer(sft.tokenizer());
    const SupervisedSample first = sft.supervised(0), second = sft.supervised(1);
    EXPECT_EQ(tokenizer->decode(first.tokens), "Who is Lily?!a girl") << model;
    EXPECT_EQ(tokenizer->decode(second.tokens), "Who?!  Tim ") << model;
    const PreferenceGroup group = pairs.preference(0);
    for (const auto& [answer, text] : {std::pair(group.pairs[0].chosen, "Who?!the cat"), {group.pairs[0].rejected, "Who?! a dog"}}) {
      std::vector<std::int32_t> both = group.prompt;
      both.insert(both.end(), answer.begin(), answer.end());
      EXPECT_EQ(tokenizer->decode(both), text) << model;
    }
  }
}

TEST(Prepare, SaysWhatTheTokenizerCannotWrite) {
  NEEDS_DATA();
  const Scratch folder;
  put(folder / "sft.jsonl", "{\"prompt\": \"a\", \"response\": \"two\\nlines\"}\n");
  const auto prepared = [&](const std::string& model) {
    return printed({"prepare", folder / "sft.jsonl", "--output", folder / "sft.h5", "--tokenizer", data("models/" + model)});
  };
  EXPECT_NE(prepared("babyllama105").find("2 unknown tokens"), std::string::npos);  // it has no line breaks
  EXPECT_EQ(prepared("stories260K").find("unknown"), std::string::npos);
}

TEST(Prepare, MakesTheQuickstartsDataWithOneTokenizer) {
  const Scratch folder;
  printed({"prepare", "--example", folder / "one"});
  printed({"prepare", "--example", folder / "two"});
  std::uint64_t fingerprint = 0;
  for (const char* name : {"sft", "heldout-sft", "preference", "heldout-preference", "prompts", "heldout-prompts"}) {
    const std::string file = std::string(name) + ".h5";
    EXPECT_EQ(bytes_of(folder / ("one/" + file)), bytes_of(folder / ("two/" + file))) << name;
    const Dataset dataset(folder / ("one/" + file));
    EXPECT_EQ(dataset.vocabulary(), 735) << name;
    EXPECT_EQ(dataset.rules().prompt, "{prompt}\n") << name;
    EXPECT_TRUE(dataset.rules().add_bos && dataset.rules().add_eos) << name;
    if (fingerprint == 0) fingerprint = dataset.tokenizer_fingerprint();
    EXPECT_EQ(dataset.tokenizer_fingerprint(), fingerprint) << name;
  }
  const Dataset sft(folder / "one/sft.h5"), heldout(folder / "one/heldout-prompts.h5"), pairs(folder / "one/preference.h5");
  EXPECT_EQ(sft.size(), 6000);
  EXPECT_EQ(heldout.size(), 60);
  EXPECT_EQ(pairs.targets(), 4000);
  const auto tokenizer = load_tokenizer(folder / "one/tokenizer.json");  // as another program would find it
  const SupervisedSample sample = sft.supervised(17);
  EXPECT_EQ(sample.tokens.front(), *tokenizer->bos());
  EXPECT_EQ(sample.tokens.back(), *tokenizer->eos());
  EXPECT_EQ(tokenizer->decode(sample.tokens), sample.prompt + sample.response);
  EXPECT_TRUE(sample.prompt.ends_with('\n')) << sample.prompt;
  EXPECT_NE(bytes_of(folder / "one/sft.jsonl").find(sample.response.substr(0, 4)), std::string::npos);
  // About three times shorter than in bytes: that is what the recipe rests on.
  EXPECT_LT(sft.tokens(), 6000 * 16);
  expect_refusal({"prepare", "--example", folder / "x", "--output", folder / "y.h5"}, {"--example", "--output"});
  EXPECT_FALSE(std::filesystem::exists(folder / "x"));
}

TEST(Prepare, SplitsAndShows) {
  const Scratch folder;
  std::string rows;
  for (int i = 0; i < 50; ++i) rows += fmt::format(R"({{"instruction": "say {}", "input": "", "output": "{}"}})", i, i) + "\n";
  put(folder / "alpaca.jsonl", rows);
  printed({"prepare", "--input", folder / "alpaca.jsonl", "--output", folder / "train.h5", "--heldout", "0.2", "--heldout-output",
           folder / "rest.h5", "--prompt-template", "Q: {instruction}\\nA: ", "--response-suffix", "\\n"});
  EXPECT_EQ(Dataset(folder / "train.h5").size(), 40);
  EXPECT_EQ(Dataset(folder / "rest.h5").size(), 10);
  const SupervisedSample sample = Dataset(folder / "train.h5").supervised(0);
  EXPECT_TRUE(sample.prompt.starts_with("Q: say ") && sample.prompt.ends_with("\nA: ")) << sample.prompt;
  EXPECT_TRUE(sample.response.ends_with('\n')) << sample.response;
  const std::string shown = printed({"inspect", folder / "train.h5", "--samples", "1"});
  EXPECT_NE(shown.find("\"Q: say "), std::string::npos) << shown;
  const std::string help = printed({"prepare", "--help"});
  EXPECT_NE(help.find("--max-prompt-tokens"), std::string::npos);
  EXPECT_NE(help.find("default '\\n\\nHuman: '\n"), std::string::npos) << help;  // as a shell takes it
}

TEST(Prepare, PutsWordsBehindTheTurnsOfDialogues) {
  const Scratch folder;
  put(folder / "in.jsonl",
      R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "Bye"}], )"
      R"("chosen": [{"role": "assistant", "content": "b"}], "rejected": [{"role": "assistant", "content": "c"}]})");
  printed({"prepare", folder / "in.jsonl", "--output", folder / "out.h5", "--human", "U:", "--assistant", "A:\\n", "--turn-suffix", "/\\n",
           "--response-suffix", "."});
  const PreferenceGroup group = Dataset(folder / "out.h5").preference(0);
  EXPECT_EQ(group.text, "U:Hi/\nA:\na/\nU:Bye/\nA:");
  EXPECT_EQ(group.pairs.at(0).chosen_text, "\nb.");
  expect_refusal({"prepare", folder / "in.jsonl", "--output", folder / "b.h5", "--like", folder / "out.h5", "--turn-suffix", "x"},
                 {"--like", "template"});
}

TEST(Prepare, GroupsPairsAsAsked) {
  const Scratch folder;
  const std::string x = R"({"prompt": "x", "chosen": "a", "rejected": "b"})", y = R"({"prompt": "y", "chosen": "a", "rejected": "b"})";
  put(folder / "in.jsonl", x + "\n" + x + "\n" + y + "\n" + x + "\n");
  const std::vector<std::string> words = {"prepare", folder / "in.jsonl", "--output", folder / "out.h5"};
  for (const auto& [how, groups] :
       {std::pair("", 2), {"--group-pairs=prompt", 2}, {"--group-pairs=consecutive", 3}, {"--group-pairs=none", 4}}) {
    std::vector<std::string> all = words;
    if (*how) all.push_back(how);
    printed(all);
    EXPECT_EQ(Dataset(folder / "out.h5").size(), groups) << how;
  }
  std::vector<std::string> wrong = words;
  wrong.push_back("--group-pairs=all");
  expect_refusal(wrong, {"group-pairs = all", "one of prompt, consecutive, none"});
}

TEST(Prepare, NamesWhatOnlyLooksLikeASpecialToken) {
  const Scratch folder;
  put(folder / "in.jsonl", "{\"prompt\": \"<|a|>\", \"response\": \"b\"}\n");
  const std::vector<std::string> words = {"prepare", folder / "in.jsonl", "--output", folder / "out.h5"};
  EXPECT_EQ(printed(words).find("stay letters"), std::string::npos);
  std::vector<std::string> more = words;
  more.insert(more.end(), {"--response-suffix", "<|im_end|>"});
  const std::string said = printed(more);
  EXPECT_NE(said.find("the template's <|im_end|> stay letters"), std::string::npos) << said;
}

/// Bad input: one sentence, exit code 2, no file.
TEST(Prepare, RefusesBadInput) {
  const Scratch folder;
  const std::string out = folder / "out.h5";
  const auto refused = [&](const std::string& name, const std::string& content, std::vector<std::string> more,
                           std::vector<std::string> parts) {
    put(folder / name, content);
    more.insert(more.begin(), {"prepare", folder / name, "--output", out});
    parts.push_back(name);
    expect_refusal(more, parts);
    EXPECT_FALSE(std::filesystem::exists(out)) << name;
  };
  const std::string good = "{\"prompt\": \"a\", \"response\": \"b\"}\n";
  refused("cut.jsonl", good + "{\"prompt\": \"a\", \"respo", {}, {"line 2"});
  refused("column.csv", "question,reply\na,b\n", {"--format", "alpaca"}, {"line", "instruction"});
  refused("columns.csv", "prompt,response\na,b\nc,d,e\n", {}, {"line 3"});
  refused("latin1.jsonl", "{\"prompt\": \"caf\xe9\", \"response\": \"b\"}\n", {}, {"line 1", "UTF-8"});
  refused("empty.jsonl", "", {}, {});
  refused("null.jsonl", "{\"prompt\": \"a\", \"response\": null}\n", {}, {"line 1", "'response' is null", "--kind prompts"});
  refused("later.jsonl", good + "{\"prompt\": \"a\", \"response\": null}\n", {}, {"line 2", "'response' is null"});
  refused("silent.jsonl", good + "{\"prompt\": \"a\", \"response\": \"\"}\n", {}, {"line 2", "the response is empty"});
  refused("silent.csv", "prompt,response\na,b\nc,\n", {}, {"line 3", "the response is empty"});
  refused("plain.jsonl.gz", good, {}, {"plain.jsonl.gz", "is not gzipped"});
  refused("array.json", "[{\"prompt\": \"a\", \"response\": \"b\"},", {}, {});
  refused("list.jsonl", "{\"prompt\": [\"a\", \"c\"], \"response\": \"b\"}\n", {}, {"line 1", "'prompt' holds 2 texts where one is expected"});
  refused("kto.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\", \"label\": false}\n", {}, {"line 1", "good or bad", "--label-field label"});
  refused("ranked.jsonl", "{\"prompt\": \"a\", \"response_a\": \"b\", \"response_b\": \"c\"}\n", {}, {"line 1", "'response_a'", "--kind prompts"});
  refused("tree.jsonl", "{\"prompt\": {\"text\": \"a\", \"role\": \"prompter\", \"replies\": []}}\n", {}, {"line 1", "--kind supervised"});
  refused("parquet.jsonl", std::string("PAR1\x15\0\x80\xff", 8), {"--skip-bad"}, {"Parquet", "to_json"});
  refused("pointer.csv", "version https://git-lfs.github.com/spec/v1\n", {"--skip-bad"}, {"Git LFS", "git lfs pull"});
  refused("wrong.jsonl", good + "no\nno\n", {"--skip-bad"}, {"2 of the 3 records"});
  refused("fields.csv", "a,b\nc,d\n", {"--prompt-field", "x"}, {"no field 'x'", "it has a, b"});
  refused("other.jsonl", "{\"chosen\": \"a\"}\n", {}, {"line 1"});
  refused("long.jsonl", good, {"--max-prompt-tokens", "2"}, {"line 1", "3 tokens"});
  refused("equal.jsonl", "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}\n", {}, {"line 1", "chosen"});
  refused("archive.jsonl.gz", "\x1f\x8b\x08 not really", {}, {});
  expect_refusal({"prepare", folder / "nothing.jsonl", "--output", out}, {"nothing.jsonl"});
  expect_refusal({"prepare", folder / "cut.jsonl"}, {"--output"});
  expect_refusal({"prepare", "--output", out}, {"--input"});
  put(folder / "good.jsonl", good);
  expect_refusal({"prepare", folder / "good.jsonl", "--output", folder / "good.jsonl"}, {"good.jsonl", "input and an output"});
  expect_refusal({"prepare", folder / "good.jsonl", "--output", out, "--heldout", "0.3"}, {"held-out"});
  expect_refusal({"prepare", folder / "good.jsonl", "--output", out, "--heldout", "1.5"}, {"heldout", ">= 0 and < 1"});
  expect_refusal({"prepare", folder / "good.jsonl", "--output", out, "--heldout", "1"}, {"heldout = 1", ">= 0 and < 1"});
  expect_refusal({"prepare", folder / "good.jsonl", "--output", out, "--kind", "preferences"}, {"preferences", "preference"});
  expect_refusal({"prepare", folder / "good.jsonl", "--output", out, "--tokenizer", folder / "tok.json"}, {"tok.json"});
  expect_refusal({"prepare", folder / "good.jsonl", "--output", out, "--like", folder / "like.h5"}, {"like.h5"});
  expect_refusal({"prepare", folder / "good.jsonl", "--output", out, "--train-bpe", "100"}, {"100", "256"});
  expect_refusal({"prepare", folder / "good.jsonl", "--output", out, "--prompt-template", "{question}"}, {"{question}"});
  for (const std::string fixed : {"Answer: ", "{input}", ""})
    expect_refusal({"prepare", folder / "good.jsonl", "--output", out, "--prompt-template", fixed}, {"'" + fixed + "'", "{prompt}"});
  expect_refusal({"prepare", folder / "good.jsonl", "--output", out, "--seed"}, {"--seed has no value", "--seed=value"});
  EXPECT_FALSE(std::filesystem::exists(out));
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    EXPECT_EQ(entry.path().string().find("out.h5"), std::string::npos) << entry.path();  // no temporary file either
  EXPECT_NE(printed({"prepare", folder / "null.jsonl", "--output", folder / "prompts.h5", "--kind", "prompts"}).find("1 prompt,"),
            std::string::npos);
  const std::string said = printed({"prepare", folder / "cut.jsonl", "--output", out, "--skip-bad"});
  EXPECT_NE(said.find("1 skipped"), std::string::npos) << said;
  EXPECT_EQ(Dataset(out).size(), 1);
}

TEST(Prepare, ReadsColumnsThatOptionsName) {
  const Scratch folder;
  put(folder / "in.csv", "input;output_1;output_2;label\nq;a;b;2\np;a;b;1\nr;a;b;tie\n");
  const std::string said = printed({"prepare", folder / "in.csv", "--output", folder / "out.h5", "--prompt-field", "input", "--answer-fields", "output_1",
                                    "--answer-fields=output_2", "--label-field", "label", "--label-values", "1", "--label-values=2"});
  const Dataset pairs(folder / "out.h5");
  EXPECT_EQ(pairs.preference(0).pairs.at(0).chosen_text, "b");
  EXPECT_EQ(pairs.preference(1).pairs.at(0).chosen_text, "a");
  EXPECT_NE(said.find("1 record left out: the label is none of 1, 2"), std::string::npos) << said;
  put(folder / "sst.tsv", "sentence\tlabel\n\"a fine film\"\t1\n5\" screen\t0\n");
  printed({"prepare", folder / "sst.tsv", "--output", folder / "sst.h5", "--prompt-field", "sentence", "--response-field", "label"});
  EXPECT_EQ(Dataset(folder / "sst.h5").supervised(1).prompt, "5\" screen\n");
  put(folder / "long.txt", std::string(40000, 'x'));
  const std::string warned = printed({"prepare", folder / "long.txt", "--output", folder / "long.h5"});
  EXPECT_NE(warned.find("warning: 1 of the plain-text samples have more than 32768 tokens (the longest 40002)"), std::string::npos) << warned;
  EXPECT_EQ(printed({"prepare", folder / "long.txt", "--output", folder / "long.h5", "--text-window", "1000"}).find("warning"), std::string::npos);
}

TEST(Prepare, ReadsRealFiles) {
  NEEDS_DATA();
  struct Case {
    const char* file;
    DatasetKind kind;
    std::int64_t samples;
  };
  const Case cases[] = {{"rlhf/awesome-chatgpt-prompts-2023-04.csv", DatasetKind::prompts, 161},
                        {"rlhf/fastchat_dummy_conversation.json", DatasetKind::supervised, 500},
                        {"rlhf/gsm8k_test.jsonl", DatasetKind::supervised, 1319},
                        {"rlhf/gsm8k_train.jsonl", DatasetKind::supervised, 7473},
                        {"rlhf/hh-harmless-base-test.jsonl.gz", DatasetKind::preference, 2310},
                        {"rlhf/llamafactory_alpaca_en_demo.json", DatasetKind::supervised, 999},
                        {"rlhf/llamafactory_dpo_en_demo.json", DatasetKind::preference, 295},
                        {"corpora/names.txt", DatasetKind::supervised, 1},
                        {"corpora/tinyshakespeare.txt", DatasetKind::supervised, 7222}};
  const Scratch folder;
  for (const Case& c : cases) {
    printed({"prepare", data(c.file), "--output", folder / "out.h5"});
    const Dataset dataset(folder / "out.h5");
    EXPECT_EQ(dataset.kind(), c.kind) << c.file;
    EXPECT_EQ(dataset.size(), c.samples) << c.file;
  }
  // A file with bad lines: refused with its line, or read without them.
  const std::string bad = data("rlhf/instructwild_v2_user_2.jsonl");
  expect_refusal({"prepare", bad, "--output", folder / "bad.h5"}, {"instructwild_v2_user_2.jsonl", "line 134"});
  EXPECT_FALSE(std::filesystem::exists(folder / "bad.h5"));
  const std::string said = printed({"prepare", bad, "--output", folder / "bad.h5", "--skip-bad"});
  EXPECT_EQ(said.find(" 0 skipped"), std::string::npos) << said;
  EXPECT_GT(Dataset(folder / "bad.h5").size(), 100);
  // The split that the reward model is measured on.
  printed({"prepare", data("rlhf/hh-harmless-base-test.jsonl.gz"), "--output", folder / "hh.h5", "--heldout", "0.3", "--heldout-output",
           folder / "rest.h5"});
  EXPECT_EQ(Dataset(folder / "hh.h5").targets(), 1618);
  EXPECT_EQ(Dataset(folder / "rest.h5").targets(), 694);
}

TEST(Prepare, DatasetsAreReadableWithH5pyAlone) {
  if (std::system("python3 -c 'import h5py' 2>/dev/null") != 0) GTEST_SKIP() << "python3 has no h5py";
  const Scratch folder;
  put(folder / "a.jsonl", "{\"prompt\": \"ab\", \"response\": \"c\"}\n{\"prompt\": \"d\", \"response\": \"ef\"}\n");
  printed({"prepare", folder / "a.jsonl", "--output", folder / "a.h5", "--prompt-template", "{prompt}"});
  put(folder / "read.py",
      "import h5py, sys\nf = h5py.File(sys.argv[1]); o = f['tokens/offsets']\n"
      "assert list(f['tokens/values'][o[1]:o[2]]) == [256, 100, 101, 102, 257]\nassert list(f['mask'][o[1]:o[2]]) == [0, 0, 1, 1, 1]\n");
  EXPECT_EQ(std::system(("python3 " + (folder / "read.py") + " " + (folder / "a.h5")).c_str()), 0);
}

TEST(Program, HelpsAndEndsInOrder) {
  const Scratch folder;
  EXPECT_NE(printed({"--help"}).find("Exit codes: 0 done"), std::string::npos);
  EXPECT_TRUE(printed({"--version"}).starts_with("collimate "));
  for (const char* command : {"prepare", "import", "export", "generate", "inspect"}) {
    EXPECT_NE(printed({"--help"}).find(command), std::string::npos);
    EXPECT_TRUE(printed({command, "--help"}).starts_with(std::string("collimate ") + command)) << command;
    expect_refusal({command, "--no-such-option=1"}, {"no-such-option"});
  }
  expect_refusal({"generat"}, {"'generat'", "generate"});
  expect_refusal({"inspect"}, {"--path"});
  expect_refusal({"inspect", "/nowhere"}, {"/nowhere"});
  const Outcome nothing = collimate({});
  EXPECT_EQ(nothing.code, 2);
  EXPECT_NE(nothing.err.find("Usage"), std::string::npos);
  // A full disk behind standard output is not taken for success.
  put(folder / "deck.ini", "[run]\nstages = prepare,sft\n[sft]\ndata = {run}/data/sft.h5\nsteps = 1\n");
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"--version"}, {"prepare", "--help"}, {"run", "--help"}, {"run", folder / "deck.ini", "--check"}}) {
    const Outcome full = collimate(words, "", "/dev/full");
    EXPECT_EQ(full.code, 1) << words[0] << full.err;
    EXPECT_NE(full.err.find("standard output cannot be written"), std::string::npos) << words[0] << full.err;
  }
  setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
  expect_refusal({"inspect", "/nowhere"}, {"without mpirun"});
  unsetenv("OMPI_COMM_WORLD_SIZE");
}

}  // namespace
}  // namespace collimate::test
