#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <string>

namespace collimate {
namespace {

/// How often the OpenMP library was loaded, as it tells by itself, by a run of the program in this environment.
int starts(const std::string& environment) {
  const std::string line = "env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT OMP_DISPLAY_ENV=true " + environment + " '" COLLIMATE_PROGRAM "' --version 2>&1";
  std::FILE* pipe = popen(line.c_str(), "r");
  std::string text;
  std::array<char, 4096> part;
  while (std::fgets(part.data(), part.size(), pipe)) text += part.data();
  EXPECT_EQ(pclose(pipe), 0) << text;
  EXPECT_NE(text.find("\ncollimate "), std::string::npos) << text;
  int count = 0;
  const std::string mark = "DISPLAY ENVIRONMENT BEGIN";
  for (auto at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) ++count;
  return count;
}

TEST(Waiting, TheProgramSetsHowThreadsWaitUnlessTheUserDoes) {
  EXPECT_EQ(starts(""), 2);
  EXPECT_EQ(starts("GOMP_SPINCOUNT=5"), 1);
  EXPECT_EQ(starts("OMP_WAIT_POLICY=active"), 1);
}

}  // namespace
}  // namespace collimate
