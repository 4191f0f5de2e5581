#include "collimate/base/options.hpp"

#include <gmock/gmock.h>

#include <cstdlib>
#include <fstream>

#include "collimate/base/error.hpp"

namespace collimate {
namespace {

using testing::AllOf;
using testing::HasSubstr;

struct Values {
  double rate = 0.1;
  std::int64_t steps = 100, memory = 2LL << 30;
  std::string scorer = "model", words, title = "a # b", deck, template_text = "Q: {}\nA: ";
  std::vector<std::string> stages = {"sft", "ppo"}, input;
  bool whiten = true, check = false;
};

OptionTable table_of(Values& v) {
  OptionTable table;
  table.add("deck", v.deck, "the deck to run");
  table.add("check", v.check, "only check");
  table.add("stages", v.stages, "what to run", one_of({"sft", "reward", "ppo"}));
  table.add("sft.rate", v.rate, "peak learning rate", more_than(0.0));
  table.add("sft.steps", v.steps, "optimizer steps (0: whole epochs)", at_least(0), "steps");
  table.add("ppo.scorer", v.scorer, "where rewards come from", one_of({"model", "lexicon", "length"}));
  table.add("ppo.whiten", v.whiten, "whitens advantages");
  table.add("ppo.words", v.words, "lexicon file");
  table.add("device.memory", v.memory, "arena", at_least(0), "bytes");
  table.add("sft.template", v.template_text, "prompt template");
  table.add("run.title", v.title, "name of the run");
  table.positional("deck");
  table.command_line_only({"check"});
  return table;
}

template <class Step>
std::string message_of(Step&& step) {
  try {
    step();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input_error);
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

TEST(Options, PathsToWriteHoldNothingForAShell) {
  std::string output, input;
  for (const char* path : {"~", "~/x.h5", "~me/x.h5", "$HOME/x.h5", "runs/${USER}/x", "runs/~/x", "./~"}) {
    OptionTable table;
    table.add("run.folder", output, "what to write", path_to_write());
    const std::string command_line = message_of([&] { table.read_arguments({std::string("--run.folder=") + path}); });
    EXPECT_EQ(command_line, fmt::format("command line: run.folder = {}: ~ and $ have no meaning in a path here, so write it out", path));
    OptionTable other;
    other.add("run.folder", output, "what to write", path_to_write());
    EXPECT_THAT(message_of([&] { other.read_deck(fmt::format("run.folder = {}\n", path), "a.ini"); }), HasSubstr("a.ini:1: run.folder = "));
  }
  EXPECT_EQ(output, "");
  OptionTable fine;
  fine.add("run.folder", output, "what to write", path_to_write());
  fine.add("input", input, "what to read");
  fine.read_arguments({"--run.folder=runs/a~b/x.h5~", "--input=~/x"});
  EXPECT_EQ(output, "runs/a~b/x.h5~");
  EXPECT_THAT(fine.help_text(), HasSubstr("what to write"));
}

TEST(Options, CommandLineWinsOverDeck) {
  Values v;
  OptionTable table = table_of(v);
  table.read_arguments({"run.ini", "--sft.rate=2.5e-4", "--ppo.scorer", "lexicon", "--check"});
  EXPECT_EQ(v.deck, "run.ini");
  EXPECT_TRUE(v.check);
  table.read_deck("# comment\nstages = ppo\nrun.title = \"x # no comment\"\n\n[sft]\r\nrate = 1\n  steps=7\n[ppo]\nwhiten = false\n"
                  "[device]\nmemory = 512MiB\n",
                  "run.ini");
  EXPECT_EQ(v.rate, 2.5e-4);
  EXPECT_EQ(v.steps, 7);
  EXPECT_EQ(v.scorer, "lexicon");
  EXPECT_EQ(v.title, "x # no comment");
  EXPECT_EQ(v.stages, std::vector<std::string>{"ppo"});
  EXPECT_EQ(v.memory, 512LL << 20);
  EXPECT_FALSE(v.whiten);
  EXPECT_TRUE(table.given("sft.rate") && table.given("sft.steps"));
  EXPECT_FALSE(table.given("ppo.words"));
  EXPECT_TRUE(table.changed("sft.rate") && table.changed("ppo.whiten"));
  EXPECT_FALSE(table.changed("ppo.words"));
}

TEST(Options, FlagsListsAndPositionals) {
  std::vector<std::string> input = {"default"}, files;
  bool shuffle = false, pack = true;
  double low = 0.0;
  OptionTable table;
  table.add("input", input, "files");
  table.add("files", files, "more files");
  table.add("shuffle", shuffle, "shuffles");
  table.add("pack", pack, "packs");
  table.add("low", low, "a bound");
  table.positional("files", -1);
  table.read_arguments({"a.txt", "--input=x,y", "--pack", "false", "--shuffle", "b.txt", "--input", "z", "--low", "-1.5"});
  EXPECT_EQ(input, (std::vector<std::string>{"x", "y", "z"}));
  EXPECT_EQ(files, (std::vector<std::string>{"a.txt", "b.txt"}));
  EXPECT_TRUE(shuffle);
  EXPECT_FALSE(pack);
  EXPECT_EQ(low, -1.5);  // lists that come several times add up
}

TEST(Options, ResolvedDeckReadsBackExactly) {
  Values v;
  v.rate = 0.1 + 0.2;
  v.words = " \"edges\" and \\ ";
  OptionTable table = table_of(v);
  const std::string deck = table.resolved_deck();
  EXPECT_THAT(deck, AllOf(HasSubstr("stages = sft, ppo\n"), HasSubstr("[sft]\nrate = 0.30000000000000004\n")));
  EXPECT_THAT(deck, HasSubstr("memory = 2GiB\n"));
  EXPECT_THAT(deck, HasSubstr("template = \"Q: {}\\nA: \"\n"));
  EXPECT_THAT(deck, testing::Not(HasSubstr("check")));
  Values w;
  w.rate = 5;
  w.words = w.title = w.template_text = "other";
  w.stages = {};
  w.memory = 0;
  OptionTable other = table_of(w);
  other.read_deck(deck, "resolved");
  EXPECT_EQ(other.resolved_deck(), deck);
  EXPECT_EQ(w.rate, v.rate);
  EXPECT_EQ(w.words, v.words);
  EXPECT_EQ(w.template_text, v.template_text);
  EXPECT_EQ(w.title, "a # b");
  const std::string part = table.resolved_deck({"run.", "device.memory"});
  EXPECT_THAT(part, testing::Not(HasSubstr("title")));
  EXPECT_THAT(part, testing::Not(HasSubstr("memory")));
  EXPECT_THAT(part, HasSubstr("steps = 100"));
}

TEST(Options, EmptyValues) {
  Values v;
  v.words = "something";
  OptionTable table = table_of(v);
  table.read_arguments({"--run.title="});
  table.read_deck("stages =\nppo.words =\n", "d");
  EXPECT_TRUE(v.stages.empty());
  EXPECT_EQ(v.words, "");
  EXPECT_EQ(v.title, "");
}

TEST(Options, ValuesMayHoldANumberSign) {
  Values v;
  table_of(v).read_deck("run.title = run#3 'a' 'b'\n[ppo]\nwords = \"a # b\"\n[sft]\ntemplate = \"# \\\"x\\\" #\"\n", "d");
  EXPECT_EQ(v.title, "run#3 'a' 'b'");
  EXPECT_EQ(v.words, "a # b");
  EXPECT_EQ(v.template_text, "# \"x\" #");
}

TEST(Options, DeckErrorsNameFileLineAndRemedy) {
  const auto deck = [](const std::string& text) {
    return message_of([&] {
      Values v;
      table_of(v).read_deck(text, "my.ini");
    });
  };
  EXPECT_THAT(deck("[sft]\n\nrat = 1\n"), AllOf(HasSubstr("my.ini:3"), HasSubstr("sft.rat"), HasSubstr("did you mean sft.rate?")));
  EXPECT_THAT(deck("[sft]\nrate = 0\n"), AllOf(HasSubstr("my.ini:2: sft.rate = 0"), HasSubstr("expected: number > 0")));
  EXPECT_THAT(deck("[sft]\nsteps = -1\n"), AllOf(HasSubstr("my.ini:2: sft.steps = -1"), HasSubstr("expected: integer >= 0 (steps)")));
  EXPECT_THAT(deck("[sft]\nsteps = 1.5\n"), HasSubstr("not an integer"));
  EXPECT_THAT(deck("[sft]\nrate = nan\n"), HasSubstr("not a number"));
  for (const char* commented : {"rate = 1 # fast", "rate = 1\t#fast", "template = a #b", "template = # none", "template = \"a\" # b"})
    EXPECT_THAT(deck(fmt::format("[sft]\n{}\n", commented)),
                AllOf(HasSubstr("my.ini:2: a comment stands on a line of its own"), HasSubstr("double quotes")));
  EXPECT_THAT(deck("[sft] # learns\n"), HasSubstr("my.ini:1: a comment stands on a line of its own"));
  EXPECT_THAT(deck("; a comment\n"), HasSubstr("which starts with #"));
  EXPECT_THAT(deck("[ppo]\nwords = 'a b'\n"), AllOf(HasSubstr("my.ini:2: 'a b' would keep its single quotes"), HasSubstr("double quotes")));
  EXPECT_THAT(deck(std::string("\xff\xfe[\0r\0]\0", 8)), HasSubstr("'my.ini' is not UTF-8 text"));
  EXPECT_THAT(deck("[sft]\nrate =\n"), HasSubstr("not a number"));
  EXPECT_THAT(deck("[sft]\nrate = 1\nrate = 2\n"), AllOf(HasSubstr("my.ini:3"), HasSubstr("line 2")));
  EXPECT_THAT(deck("ppo.scorer = lexikon\n"), AllOf(HasSubstr("is unknown (did you mean lexicon?)"), HasSubstr("one of model, lexicon, length")));
  EXPECT_THAT(deck("stages = sft, rewart\n"), AllOf(HasSubstr("stages = rewart"), HasSubstr("did you mean reward?")));
  EXPECT_THAT(deck("device.memory = 2Gb\n"), AllOf(HasSubstr("not a size"), HasSubstr("512MiB")));
  EXPECT_THAT(deck("ppo.whiten = maybe\n"), HasSubstr("true or false"));
  EXPECT_THAT(deck("[sft\n"), AllOf(HasSubstr("my.ini:1"), HasSubstr("[name]")));
  EXPECT_THAT(deck("# fine\nrubbish\n"), HasSubstr("my.ini:2"));
  EXPECT_THAT(deck("check = true\n"), HasSubstr("command line"));
  EXPECT_THAT(deck("run.title = \"open\n"), HasSubstr("double quote"));
  EXPECT_THAT(message_of([] { OptionTable().read_deck_file("/no/such/deck.ini"); }),
              AllOf(HasSubstr("/no/such/deck.ini"), HasSubstr("No such file")));
}

TEST(Options, CommandLineErrors) {
  const auto line = [](const std::vector<std::string>& words) {
    return message_of([&] {
      Values v;
      table_of(v).read_arguments(words);
    });
  };
  EXPECT_THAT(line({"--sft.rat=1"}), AllOf(HasSubstr("--sft.rat;"), HasSubstr("did you mean --sft.rate?")));
  EXPECT_THAT(line({"--sft.ra=1"}), HasSubstr("did you mean --sft.rate?"));  // the beginning of a name is no option
  EXPECT_THAT(line({"--rate=1"}), HasSubstr("did you mean --sft.rate?"));
  EXPECT_THAT(line({"--gpu"}), HasSubstr("there is no option --gpu; --help lists all of them"));  // nothing is near
  EXPECT_THAT(line({"--sft.rate"}), HasSubstr("sft.rate"));
  EXPECT_THAT(line({"--sft.rate", "1", "a.ini", "--sft.rate=2", "b c"}), HasSubstr("'b c' has no option in front of it; values are"));
  EXPECT_THAT(line({"--sft.rate=-1"}), AllOf(HasSubstr("command line: sft.rate = -1"), HasSubstr("expected: number > 0")));
}

TEST(Options, TheLastOneOnTheCommandLineCounts) {
  Values v;
  table_of(v).read_arguments({"--sft.rate=1", "--sft.rate", "2"});
  EXPECT_EQ(v.rate, 2);
}

TEST(Options, HelpOfOneSection) {
  Values v;
  const OptionTable table = table_of(v);
  EXPECT_THAT(table.help_text("sft"), AllOf(HasSubstr("--sft.rate"), Not(HasSubstr("--ppo."))));
  EXPECT_THAT(message_of([&] { table.help_text("stf"); }), HasSubstr("the sections are"));
}

TEST(Options, AWordWithoutAnOptionIsToldWhichOneItIsMeantFor) {
  const auto line = [](const std::vector<std::string>& words) {
    return message_of([&] {
      Values v;
      OptionTable table = table_of(v);
      table.words_are_for("run.title");
      table.read_arguments(words);
    });
  };
  EXPECT_THAT(line({"a.ini", "b c"}), HasSubstr("'b c' has no option in front of it; give it as --run.title 'b c'"));
  EXPECT_THAT(line({"--run.title=a", "a.ini", "b c"}), HasSubstr("values are given as --name=value, in quotes where they contain spaces"));
}

TEST(Options, RangesSayWhatTheyTake) {
  const auto with = [](const Range& range, const std::string& given) {
    double value = -1;
    OptionTable table;
    table.add("x", value, "a number", range);
    table.read_arguments({"--x=" + given});
    return value;
  };
  EXPECT_EQ(at_least_below(0, 1).text(), ">= 0 and < 1");
  EXPECT_EQ(with(at_least_below(0, 1), "0"), 0);
  EXPECT_THAT(message_of([&] { with(at_least_below(0, 1), "1"); }), HasSubstr("x = 1 is out of range; expected: number >= 0 and < 1"));
  EXPECT_THAT(message_of([&] { with(zero_or_between(2, 4), "1"); }), HasSubstr("expected: 0 or number 2..4"));
  for (const double good : {0.0, 2.0, 4.0}) EXPECT_EQ(with(zero_or_between(2, 4), fmt::format("{}", good)), good);
  for (const std::string bad : {"1", "5", "-1"}) EXPECT_THAT(message_of([&] { with(zero_or_between(2, 4), bad); }), HasSubstr("out of range"));
}

TEST(Options, HelpShowsEveryOption) {
  Values v;
  OptionTable table = table_of(v);
  const std::string help = table.help_text();
  for (const std::string& name : table.names()) EXPECT_THAT(help, HasSubstr("--" + name));
  EXPECT_THAT(help, HasSubstr("integer >= 0 (steps); default 100"));
  EXPECT_THAT(help, HasSubstr("[ppo]"));
  OptionTable words;
  std::string text = "\\n\\nHuman: ", plain = "auto";
  words.add("human", text, "of a command line");
  words.add("format", plain, "of a command line");
  words.add("run.human", text, "of a deck");
  EXPECT_THAT(words.help_text(),
              AllOf(HasSubstr("default '\\n\\nHuman: '\n"), HasSubstr("default auto\n"), HasSubstr(R"(default "\\n\\nHuman: ")")));
  v.steps = 3;  // the default is what the variable held when it was declared
  EXPECT_EQ(table.help_text(), help);
}

}  // namespace
}  // namespace collimate
