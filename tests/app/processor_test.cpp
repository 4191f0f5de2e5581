#include "app/processor.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "app/build_info.hpp"

namespace collimate {
namespace {

TEST(Processor, NamesTheAbsentFeatures) {
  const Feature needed[] = {{"avx2", true}, {"avx512f", false}, {"fma", true}, {"gfni", false}, {nullptr, true}};
  char text[64];
  EXPECT_EQ(missing_features(needed, text, sizeof text), 2);
  EXPECT_STREQ(text, "avx512f, gfni");
  char small[10];
  EXPECT_EQ(missing_features(needed, small, sizeof small), 2);
  EXPECT_STREQ(small, "avx512f, ");
  const Feature nothing[] = {{nullptr, true}};
  EXPECT_EQ(missing_features(nothing, text, sizeof text), 0);
  EXPECT_STREQ(text, "");
}

TEST(ProcessorDeathTest, EndsWithASentence) {
  const Feature needed[] = {{"avx2", true}, {"avx512f", false}, {nullptr, true}};
  EXPECT_EXIT(require_features("x86-64-v4", needed), testing::ExitedWithCode(2),
              "built for x86-64-v4 and needs avx512f, which this processor lacks: rebuild with -DCOLLIMATE_ARCH=native");
}

TEST(Processor, NeededFeaturesAreThoseThatThisFileWasCompiledWith) {
  // The kernel's list is another source than the compiler's table; it says avx where __builtin_cpu_supports does.
  std::ifstream file("/proc/cpuinfo");
  std::stringstream flags;
  flags << file.rdbuf();
  int count = 0;
  for (const Feature* feature = needed_features(); feature->name != nullptr; ++feature, ++count) {
    EXPECT_TRUE(feature->present) << feature->name;
    const std::string name = feature->name;
    if (name == "avx2" || name == "fma" || name == "avx512f") {
      EXPECT_NE(flags.str().find(" " + name + " "), std::string::npos) << name;
    }
  }
  if (std::string(built_for()) == "x86-64-v3") {
    EXPECT_EQ(count, 13);  // x86-64 psABI, table "micro-architecture levels", less those that only the system uses
  }
  require_processor();
}

TEST(BuildInfo, NamesProcessorInstructionsAndLibraries) {
  const BuildInfo info = build_info();
  const std::string line = describe(info);
  for (const char* part : {"collimate ", "march=", "MPI ", "HDF5 1.", "fmt ", "Boost 1.", "[sse3 "}) {
    EXPECT_NE(line.find(part), std::string::npos) << part << " in: " << line;
  }
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_NE(line.find(info.processor), std::string::npos);
}

}  // namespace
}  // namespace collimate
