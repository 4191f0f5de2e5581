// No command makes a folder named ~ or $HOME, which a shell should have replaced.
#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "app/program.hpp"

namespace collimate::test {
namespace {

using testing::HasSubstr;

struct Option {
  std::string command, name;
  bool path = false;  ///< the help calls it a path to write
};

std::vector<std::string> words_of(const std::string& text, const std::string& prefix) {
  std::vector<std::string> found;
  std::istringstream lines(text);
  for (std::string line, word; std::getline(lines, line);)
    if (line.starts_with(prefix) && std::istringstream(line.substr(prefix.size())) >> word) found.push_back(word);
  return found;
}

/// Every option of every command, as the program's help lists them.
std::vector<Option> all_options() {
  std::vector<Option> all;
  for (const std::string& command : words_of(collimate({"--help"}).out, "  ")) {
    const std::string help = collimate({command, "--help"}).out;
    for (const std::string& name : words_of(help, "  --")) {
      const std::size_t here = help.find("  --" + name + " "), next = std::min(help.find("\n  --", here), help.size());
      const std::string lines = help.substr(here, next - here) + "\n";
      all.push_back({command, name, lines.find("  path\n") != std::string::npos || lines.find("  path;") != std::string::npos});
    }
  }
  return all;
}

TEST(Paths, WhatIsWrittenNamesNoHome) {
  const Scratch scratch;
  put(scratch / "deck.ini", "[run]\nstages = sft\n");
  std::size_t tried = 0;
  for (const Option& option : all_options()) {
    const bool by_name = option.name.find("output") != std::string::npos || option.name == "run.folder";
    EXPECT_TRUE(option.path || !by_name) << option.command << " --" << option.name << " writes, and is not declared as a path to write";
    if (!option.path) continue;
    ++tried;
    for (const std::string home : {"~/made.h5", "$HOME/made.h5"}) {
      std::vector<std::string> words = {option.command};
      if (option.command == "run") words.push_back(scratch / "deck.ini");
      words.push_back("--" + option.name + "=" + home);
      const Outcome outcome = collimate(words);
      EXPECT_EQ(outcome.code, 2) << option.command;
      EXPECT_THAT(outcome.err, HasSubstr(option.name + " = " + home + ": ~ and $ have no meaning in a path here, so write it out"));
    }
  }
  EXPECT_GE(tried, 6u);  // run.folder, import, export, and three of prepare
  EXPECT_FALSE(std::filesystem::exists("~"));
  EXPECT_FALSE(std::filesystem::exists("$HOME"));
}

}  // namespace
}  // namespace collimate::test
