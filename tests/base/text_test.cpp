#include "collimate/base/text.hpp"

#include <gtest/gtest.h>

namespace collimate {
namespace {

TEST(Text, SplitTrimJoin) {
  EXPECT_EQ(trim(" \t a b\r\n"), "a b");
  EXPECT_EQ(trim("  "), "");
  EXPECT_EQ(split("a, b ,,c", ','), (std::vector<std::string>{"a", "b", "", "c"}));
  EXPECT_TRUE(split("  ", ',').empty());
  EXPECT_EQ(join({"a", "b"}, ", "), "a, b");
}

TEST(Text, HumanNumbers) {
  EXPECT_EQ(human_bytes(12), "12 B");
  EXPECT_EQ(human_bytes(1536), "1.5 KiB");
  EXPECT_EQ(human_bytes((1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(human_bytes(3LL << 30), "3.0 GiB");
  EXPECT_EQ(human_duration(0.25), "0.2 s");
  EXPECT_EQ(human_duration(12.34), "12 s");
  EXPECT_EQ(human_duration(245.4), "4 min 05 s");
  EXPECT_EQ(human_duration(7380.0), "2 h 03 min");
}

TEST(Text, BytesReadBack) {
  for (const std::int64_t bytes : {0LL, 1LL, 1000LL, 1024LL, 3LL << 20, (3LL << 20) + 1, 7LL << 42}) {
    std::int64_t back = -1;
    EXPECT_TRUE(read_bytes(exact_bytes(bytes), back)) << exact_bytes(bytes);
    EXPECT_EQ(back, bytes);
  }
  std::int64_t bytes = 0;
  EXPECT_TRUE(read_bytes("1.5KiB", bytes));
  EXPECT_EQ(bytes, 1536);
  EXPECT_TRUE(read_bytes(" 2 GB ", bytes));
  EXPECT_EQ(bytes, 2000000000);
  for (const char* bad : {"", "x", "1.0001KiB", "2Gib", "-1", "1e3", "9999999999GiB", "KiB", "1.2.3MiB"})
    EXPECT_FALSE(read_bytes(bad, bytes)) << bad;
}

TEST(Text, ShellWordsReadBack) {
  EXPECT_EQ(shell_word("runs/a-b_1.2/sft"), "runs/a-b_1.2/sft");
  for (const std::string text : {"", "runs/my run", "a#b", "it's", "a\"b", "$HOME `x` \\", "~/x", "a\nb", "(a)&b;c|d>e*?[f]{g}!"}) {
    const std::string command = "printf %s. " + shell_word(text);
    FILE* const shell = popen(command.c_str(), "r");
    std::string said(100, '\0');
    said.resize(fread(said.data(), 1, said.size(), shell));
    pclose(shell);
    EXPECT_EQ(said, text + ".");
  }
}

TEST(Text, NearestName) {
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  const std::vector<std::string> names = {"ppo.rate", "sft.rate", "run.folder", "check"};
  EXPECT_EQ(did_you_mean("sft.rat", names, "--"), "did you mean --sft.rate?");
  EXPECT_EQ(did_you_mean("folder", names), "did you mean run.folder?");  // without its section
  EXPECT_EQ(did_you_mean("sft.r", names), "did you mean sft.rate?");     // the beginning of a name
  EXPECT_EQ(did_you_mean("gpu", names), "");
  EXPECT_EQ(did_you_mean("x", {}), "");
  EXPECT_EQ(fnv1a(""), 0xcbf29ce484222325u);
  EXPECT_EQ(fnv1a("a"), 0xaf63dc4c8601ec8cu);  // published FNV-1a vectors
  EXPECT_EQ(fnv1a("foobar"), 0x85944171f73967e8u);
}

}  // namespace
}  // namespace collimate
