#include "collimate/io/run_folder.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "io/scratch.hpp"

namespace collimate {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using test::bytes_of;
using test::put;
using test::refusal;
using test::Scratch;

constexpr const char* stages[] = {"sft", "reward", "ppo"};

TEST(JsonLine, KeepsOrderAndTypes) {
  const std::vector<double> some{0.5, -2};
  const std::vector<std::int64_t> none;
  EXPECT_EQ(JsonLine().text(), "{}");
  EXPECT_EQ(JsonLine().add("step", 3).add("loss", 1.5).add("ok", true).add("text", "a\"b").text(),
            R"({"step":3,"loss":1.5,"ok":true,"text":"a\"b"})");
  EXPECT_EQ(JsonLine().add("a", some).add("b", none).add("c", std::uint64_t{18446744073709551615u}).add("d", std::string("x")).text(),
            R"({"a":[0.5,-2],"b":[],"c":18446744073709551615,"d":"x"})");
}

TEST(JsonLine, NumbersReadBackAsTheSameBits) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 20000; ++i) {
    const std::uint64_t bits = random();
    double value;
    std::memcpy(&value, &bits, 8);
    if (!std::isfinite(value)) continue;
    const std::string text = JsonLine().add("x", value).text();
    EXPECT_EQ(Json::parse(text)["x"].get<double>(), value) << text;
    EXPECT_LE(text.size(), 30u);
  }
  EXPECT_EQ(json_number(0.1), "0.1");
  EXPECT_EQ(json_number(-0.0), "-0");
  EXPECT_EQ(refusal([] { JsonLine().add("loss", std::nan("")); }),
            "loss is nan, which cannot be written as a result: the computation went wrong before");
  EXPECT_THROW(JsonLine().add("loss", std::vector<double>{1, std::numeric_limits<double>::infinity()}), Error);
}

TEST(JsonLine, TextsOfAnyBytesAreValidJson) {
  const std::string good = "tab\t newline\n bell\a \"quote\\ \x7f \u00e9 \u20ac \U0001F600 \U0010FFFF";
  EXPECT_EQ(Json::parse(json_text(good)).get<std::string>(), good);
  const std::string mark = "\xef\xbf\xbd";
  const auto becomes = [](const std::string& bytes) { return Json::parse(json_text(bytes)).get<std::string>(); };
  EXPECT_EQ(becomes("a\xff" "b"), "a" + mark + "b");
  EXPECT_EQ(becomes("\xc0\xaf"), mark + mark);                  // overlong
  EXPECT_EQ(becomes("\xe0\x9f\x80"), mark + mark + mark);       // overlong
  EXPECT_EQ(becomes("\xed\xa0\x80"), mark + mark + mark);       // surrogate
  EXPECT_EQ(becomes("\xf4\x90\x80\x80"), mark + mark + mark + mark);  // above U+10FFFF
  EXPECT_EQ(becomes("\xe2\x82"), mark + mark);                  // cut off
  EXPECT_EQ(becomes("\xe2\x82z"), mark + mark + "z");
  EXPECT_EQ(becomes(std::string("a\0b", 3)), std::string("a\0b", 3));
  std::mt19937 random(3);
  for (int i = 0; i < 2000; ++i) {
    std::string bytes(random() % 12, ' ');
    for (char& byte : bytes) byte = static_cast<char>(random() % 4 ? 0x80 + random() % 128 : random() % 128);
    EXPECT_TRUE(Json::accept(json_text(bytes)));
  }
  EXPECT_EQ(json_text("\x1b\x7f"), "\"\\u001b\\u007f\"") << "nothing that a terminal would obey";
}

TEST(JsonLines, ARestartContinuesWhereTheCheckpointWas) {
  const Scratch scratch;
  const auto step = [](int i) { return JsonLine().add("step", i).add("loss", 1.0 / i); };
  JsonLines whole(scratch / "whole"), cut(scratch / "cut");
  std::int64_t position = 0;
  for (int i = 1; i <= 10; ++i) {
    whole.write(step(i));
    if (i <= 7) cut.write(step(i));
    if (i == 4) position = cut.position();
  }
  put(scratch / "cut", bytes_of(scratch / "cut") + "{\"step\":8,\"lo");  // killed within a line
  JsonLines again(scratch / "cut");
  EXPECT_GT(again.position(), position);
  again.truncate_to(position);
  EXPECT_EQ(again.position(), position);
  for (int i = 5; i <= 10; ++i) again.write(step(i));
  EXPECT_EQ(bytes_of(scratch / "cut"), bytes_of(scratch / "whole"));
  EXPECT_SAYS(refusal([&] { again.truncate_to(100000); }), "but the checkpoint was taken when it had 100000");
  EXPECT_SAYS(refusal([&] { again.truncate_to(position + 1); }), "no line that ends at byte");
  EXPECT_THROW(again.truncate_to(-1), Error);
  again.truncate_to(0);
  EXPECT_EQ(bytes_of(scratch / "cut"), "");
}

TEST(JsonLines, AFullDiskLeavesNoHalfLine) {
  const Scratch scratch;
  JsonLines lines(scratch / "m");
  lines.write(JsonLine().add("step", 1));
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{20, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string answer = refusal([&] { lines.write(JsonLine().add("step", "a long line")); });
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_SAYS(answer, "/m'");
  EXPECT_SAYS(answer, "free space");
  EXPECT_EQ(bytes_of(scratch / "m"), "{\"step\":1}\n");
  lines.write(JsonLine().add("step", 2));
  EXPECT_EQ(bytes_of(scratch / "m"), "{\"step\":1}\n{\"step\":2}\n");
  EXPECT_SAYS(refusal([&] { JsonLines none(scratch / "no/m"); }), "cannot write");
}

TEST(RunFolder, HasItsLayoutAndGoesOn) {
  const Scratch scratch;
  const std::string path = scratch / "a/run";
  RunPositions at;
  {
    RunFolder run(path, Existing::refuse, stages);
    run.write_deck("[run]\nseed = 1\n");
    run.metrics().write(JsonLine().add("step", 1));
    run.samples().write(JsonLine().add("prompt", "x"));
    at = RunPositions::from_json(run.positions().to_json());
    run.metrics().write(JsonLine().add("step", 2));
    run.timings().write(JsonLine().add("seconds", 0.5));
  }
  for (const char* name : {"deck.ini", "metrics.jsonl", "timings.jsonl", "samples.jsonl", "checkpoints"})
    EXPECT_TRUE(fs::exists(fs::path(path) / name)) << name;
  EXPECT_SAYS(refusal([&] { RunFolder run(path, Existing::refuse, stages); }), "already holds a run");
  {
    RunFolder run(path, Existing::go_on, stages);
    run.restart_at(at);
    run.metrics().write(JsonLine().add("step", 2));
  }
  EXPECT_EQ(bytes_of(path + "/metrics.jsonl"), "{\"step\":1}\n{\"step\":2}\n");
  EXPECT_EQ(bytes_of(path + "/timings.jsonl"), "{\"seconds\":0.5}\n");
  put(path + "/notes.txt", "mine");
  RunFolder fresh(path, Existing::replace, stages);
  EXPECT_EQ(fresh.metrics().position(), 0);
  EXPECT_FALSE(fs::exists(path + "/deck.ini"));
  EXPECT_EQ(bytes_of(path + "/notes.txt"), "mine");
  EXPECT_EQ(fresh.left(), std::vector<std::string>{"notes.txt"});
  EXPECT_THROW(RunPositions::from_json("{\"metrics\":1}"), Error);
  EXPECT_THROW(RunPositions::from_json("nothing"), Error);
}

TEST(RunFolder, CutsEachFileBackToItsOwnPlace) {
  const Scratch scratch;
  RunFolder folder(scratch / "run", Existing::refuse, stages);
  const auto write = [&](int lines) {
    for (int i = 0; i < lines; ++i) {
      folder.metrics().write(JsonLine().add("metric", i));
      folder.timings().write(JsonLine().add("seconds", i));
      if (i % 2 == 0) folder.samples().write(JsonLine().add("sample", i));
      if (i % 3 == 0) folder.hashes().write(JsonLine().add("hash", i));
    }
  };
  write(4);
  const RunPositions kept = RunPositions::from_json(folder.positions().to_json());
  std::map<std::string, std::string> before;
  for (const char* name : {"metrics.jsonl", "samples.jsonl", "hashes.jsonl"}) before[name] = bytes_of(folder.file(name));
  write(7);
  const std::string timings = bytes_of(folder.file("timings.jsonl"));
  folder.restart_at(kept);
  for (const auto& [name, bytes] : before) EXPECT_EQ(bytes_of(folder.file(name)), bytes) << name;
  EXPECT_EQ(bytes_of(folder.file("timings.jsonl")), timings) << "times go on";
}

TEST(RunFolder, IsForOneRunAtATime) {
  const Scratch scratch;
  const std::string path = scratch / "run";
  for (const Existing existing : {Existing::refuse, Existing::replace, Existing::go_on}) {
    const RunFolder run(path, Existing::replace, stages);
    EXPECT_TRUE(run.locked());
    EXPECT_SAYS(refusal([&] { RunFolder second(path, existing, stages); }),
                existing == Existing::refuse ? "already holds a run" : "in use by another run");
    EXPECT_SAYS(refusal([&] { RunLock second(path); }), "'" + path + "' is in use by another run");
  }
  EXPECT_EQ(refusal([&] { RunFolder next(path, Existing::go_on, stages, RunLock(path)); }), "accepted");
  // The lock ends with its process, also with one that is killed.
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const RunFolder run(path, Existing::go_on, stages);
    const bool told = write(ready[1], "x", 1) == 1;
    while (told) pause();
    _exit(1);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_SAYS(refusal([&] { RunFolder second(path, Existing::replace, stages); }), "in use by another run");
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_EQ(refusal([&] { RunFolder next(path, Existing::replace, stages); }), "accepted");
  close(ready[0]), close(ready[1]);
  // A folder that only has a lock is as good as new; in one that is refused none is made.
  fs::remove_all(path);
  fs::create_directories(path);
  { const RunLock lock(path); }
  EXPECT_TRUE(RunLock::known_in(path));
  EXPECT_EQ(refusal([&] { RunFolder run(path, Existing::refuse, stages); }), "accepted");
  put(scratch / "thesis.txt", "x");
  EXPECT_SAYS(refusal([&] { RunFolder run(scratch / ".", Existing::refuse, stages); }), "is not empty");
  EXPECT_FALSE(RunLock::known_in(scratch / "."));
}

void put_checkpoint(const std::string& path) {
  fs::create_directories(path);
  put(path + "/manifest.json", "{}");
  put(path + "/part-00000.h5", "x");
}

TEST(RunFolder, ReplacesWhatRunsWriteAndNothingElse) {
  const Scratch scratch;
  const std::string path = scratch / "run", elsewhere = scratch / "elsewhere";
  const auto make = [&](const std::string& name) { put_checkpoint(path + "/checkpoints/" + name); };
  { RunFolder(path, Existing::refuse, stages).write_deck("[run]\n"); }
  for (const char* name : {"sft", "sft-20", "reward.replaced", "ppo-3.partial", "base", "sft-best", "ppox"}) make(name);
  put(path + "/checkpoints/sft-20/.manifest.json.17.part", "{");  // of a run that was killed
  put(path + "/checkpoints/notes.txt", "mine");
  fs::create_directories(elsewhere);
  put(elsewhere + "/manifest.json", "{}");
  fs::create_directory_symlink(elsewhere, path + "/checkpoints/ppo");
  const std::vector<std::string> mine = {"checkpoints/base", "checkpoints/notes.txt", "checkpoints/ppo", "checkpoints/ppox", "checkpoints/sft-best"};
  { EXPECT_EQ(RunFolder(path, Existing::replace, stages).left(), mine); }
  for (const std::string& name : mine) EXPECT_TRUE(fs::exists(path + "/" + name)) << name;
  EXPECT_TRUE(fs::exists(elsewhere + "/manifest.json"));
  EXPECT_EQ(std::distance(fs::directory_iterator(path + "/checkpoints"), {}), 5);
  // A foreign file within a checkpoint: nothing is removed.
  { RunFolder(path, Existing::go_on, stages).write_deck("[run]\n"); }
  make("sft"), make("reward-7");
  put(path + "/checkpoints/sft/results.csv", "mine");
  EXPECT_SAYS(refusal([&] { RunFolder run(path, Existing::replace, stages); }), "checkpoints/sft' holds 'results.csv'");
  for (const char* name : {"/deck.ini", "/checkpoints/sft/results.csv", "/checkpoints/reward-7/manifest.json"}) EXPECT_TRUE(fs::exists(path + name)) << name;
}

// Which folders are a run's follows from the stages that its owner names.
TEST(RunFolder, ReplacesTheCheckpointsOfTheStagesThatItIsTold) {
  const Scratch scratch;
  const std::string path = scratch / "run";
  { RunFolder(path, Existing::refuse, stages).write_deck("[run]\n"); }
  for (const char* name : {"sft", "dpo", "dpo-20"}) put_checkpoint(path + "/checkpoints/" + name);
  constexpr const char* others[] = {"dpo"};
  EXPECT_EQ(RunFolder(path, Existing::replace, others).left(), std::vector<std::string>{"checkpoints/sft"});
  EXPECT_FALSE(fs::exists(path + "/checkpoints/dpo") || fs::exists(path + "/checkpoints/dpo-20"));
}

TEST(RunFolder, DoesNotFollowALinkToReplaceCheckpoints) {
  const Scratch scratch;
  const std::string path = scratch / "run", theirs = scratch / "theirs";
  { RunFolder(path, Existing::refuse, stages).write_deck("[run]\n"); }
  put_checkpoint(theirs + "/sft");
  fs::remove(path + "/checkpoints");
  fs::create_directory_symlink(theirs, path + "/checkpoints");
  for (const auto& answer : {refusal([&] { RunFolder run(path, Existing::replace, stages); }),
                             refusal([&] { RunFolder::check(path, Existing::replace, stages); })})
    EXPECT_SAYS(answer, "/checkpoints' is a symbolic link");
  EXPECT_TRUE(fs::exists(theirs + "/sft/manifest.json") && fs::exists(path + "/deck.ini"));
  EXPECT_EQ(refusal([&] { RunFolder run(path, Existing::go_on, stages); }), "accepted");
  fs::remove(path + "/checkpoints");
  // Links in the place of its own files go, what they lead to stays; the run folder itself may be a link.
  put(scratch / "precious.jsonl", "mine");
  fs::remove(path + "/metrics.jsonl");
  fs::create_symlink(scratch / "precious.jsonl", path + "/metrics.jsonl");
  fs::create_directory_symlink(path, scratch / "link");
  { RunFolder(scratch / "link", Existing::replace, stages).metrics().write(JsonLine().add("step", 1)); }
  EXPECT_EQ(bytes_of(scratch / "precious.jsonl"), "mine");
  EXPECT_EQ(bytes_of(path + "/metrics.jsonl"), "{\"step\":1}\n");
}

TEST(RunFolder, IsCheckedWithoutAChange) {
  const Scratch scratch;
  put(scratch / "file", "x");
  fs::create_symlink(scratch / "nowhere", scratch / "dangling");
  fs::create_symlink(scratch / "circle", scratch / "circle");
  fs::create_directory(scratch / "closed");
  fs::permissions(scratch / "closed", fs::perms(0555));
  const auto expect = [&](const std::string& name, const std::string& answer) {
    const std::string path = scratch / name;
    for (const Existing existing : {Existing::refuse, Existing::replace, Existing::go_on}) {
      EXPECT_SAYS(refusal([&] { RunFolder::check(path, existing, stages); }), answer);
      EXPECT_SAYS(refusal([&] { RunFolder run(path, existing, stages); }), answer);
    }
  };
  for (const char* name : {"file", "file/run"}) expect(name, "/file' is not a folder; choose another run.folder");
  for (const char* name : {"dangling", "dangling/run"}) expect(name, "/dangling' is a symbolic link to a place that does not exist");
  expect("circle", "Too many levels of symbolic links; choose another run.folder");
  for (const std::string above : {"", "new/"}) expect(above + std::string(300, 'x'), "File name too long; choose another run.folder");
  EXPECT_EQ(refusal([&] { RunFolder::check(scratch / "new/run", Existing::refuse, stages); }), "accepted");
  EXPECT_FALSE(fs::exists(scratch / "new"));
  fs::permissions(scratch / ".", fs::perms(0755));
  const pid_t child = fork();
  if (child == 0) {  // root may write everywhere; another user may not reach this folder by its path, where TMPDIR is root's alone
    fs::current_path(scratch / ".");
    if (geteuid() == 0 && (chroot(".") != 0 || setuid(65534) != 0)) _exit(2);
    for (const std::string path : {"closed", "closed/run"})
      for (const Existing existing : {Existing::refuse, Existing::replace, Existing::go_on}) {
        EXPECT_SAYS(refusal([&] { RunFolder::check(path, existing, stages); }), "choose a run.folder that you may write to");
        EXPECT_SAYS(refusal([&] { RunFolder run(path, existing, stages); }), "choose a run.folder that you may write to");
      }
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(RunFolder, ARestartCutsThreeFilesAndNoOther) {
  const Scratch scratch;
  const auto line = [](const char* key) { return JsonLine().add("file", key); };
  const auto write = [&](RunFolder& run, const char* key) {
    run.metrics().write(line(key));
    run.samples().write(line(key).add("more", 1));
    run.hashes().write(line(key).add("still more", 12));
    run.timings().write(line(key));
  };
  RunPositions then;
  {
    RunFolder run(scratch / "run", Existing::refuse, stages);
    write(run, "kept");
    then = RunPositions::from_json(run.positions().to_json());
    write(run, "lost");
  }
  RunFolder run(scratch / "run", Existing::go_on, stages);
  run.restart_at(then);
  write(run, "new");
  run.positions();
  EXPECT_EQ(bytes_of(run.file("metrics.jsonl")), "{\"file\":\"kept\"}\n{\"file\":\"new\"}\n");
  EXPECT_EQ(bytes_of(run.file("samples.jsonl")), "{\"file\":\"kept\",\"more\":1}\n{\"file\":\"new\",\"more\":1}\n");
  EXPECT_EQ(bytes_of(run.file("hashes.jsonl")), "{\"file\":\"kept\",\"still more\":12}\n{\"file\":\"new\",\"still more\":12}\n");
  run.timings().sync();
  EXPECT_EQ(bytes_of(run.file("timings.jsonl")), "{\"file\":\"kept\"}\n{\"file\":\"lost\"}\n{\"file\":\"new\"}\n");
}

TEST(RunFolder, NeverReplacesWhatIsNoRun) {
  const Scratch scratch;
  put(scratch / "thesis.txt", "x");
  EXPECT_SAYS(refusal([&] { RunFolder run(scratch / ".", Existing::replace, stages); }), "does not hold a run");
  EXPECT_SAYS(refusal([&] { RunFolder run(scratch / "thesis.txt", Existing::replace, stages); }), "cannot create the run folder");
  EXPECT_SAYS(refusal([&] { RunFolder run("", Existing::replace, stages); }), "run.folder is empty");
}

TEST(Summary, KeysStayFlatAndComeBack) {
  const Scratch scratch;
  Summary summary;
  summary.set("sft.eval_loss", 1.0 / 3);
  summary.set("state_hash", "00ff");
  summary.set("ppo.steps", 12);
  summary.set("done", true);
  EXPECT_THROW(summary.set("ppo.kl", std::nan("")), Error);
  summary.save(scratch / "summary.json");
  EXPECT_EQ(Json::parse(bytes_of(scratch / "summary.json")),
            (Json{{"sft.eval_loss", 1.0 / 3}, {"state_hash", "00ff"}, {"ppo.steps", 12}, {"done", true}}));
  const Summary again = Summary::load(scratch / "summary.json");
  EXPECT_EQ(again.text(), summary.text());
  EXPECT_EQ(again.number("sft.eval_loss"), 1.0 / 3);
  EXPECT_FALSE(again.has("ppo.kl"));
  EXPECT_THROW(again.number("ppo.kl"), Error);
  EXPECT_THROW(again.number("state_hash"), Error);
  put(scratch / "summary.json", "{");
  EXPECT_SAYS(refusal([&] { Summary::load(scratch / "summary.json"); }), "summary.json' is not a JSON object");
}

}  // namespace
}  // namespace collimate
