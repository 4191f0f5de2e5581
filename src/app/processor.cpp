#include "app/processor.hpp"

#include <cstdio>
#include <cstdlib>

// This file is compiled for any processor and calls the C library alone: an inline function or template of the C++
// library could be linked from another file, which was compiled for the instructions that may be missing.

namespace collimate {

const char* built_for() { return COLLIMATE_ARCH; }

const Feature* needed_features() {
#include "needed_features.inc"
  return features;
}

int missing_features(const Feature* needed, char* text, std::size_t size) {
  int missing = 0;
  std::size_t used = 0;
  text[0] = '\0';
  for (; needed->name != nullptr; ++needed) {
    if (needed->present) continue;
    const int length = std::snprintf(text + used, size - used, "%s%s", missing > 0 ? ", " : "", needed->name);
    used += static_cast<std::size_t>(length);
    if (used >= size) used = size - 1;
    ++missing;
  }
  return missing;
}

void require_features(const char* arch, const Feature* needed) {
  char names[512];
  if (missing_features(needed, names, sizeof names) == 0) return;
  std::fprintf(stderr,
               "error: this program was built for %s and needs %s, which this processor lacks: "
               "rebuild with -DCOLLIMATE_ARCH=native on this node (x86-64-v3 serves every node with AVX2)\n",
               arch, names);
  std::_Exit(2);
}

void require_processor() { require_features(built_for(), needed_features()); }

namespace {
// 101 is the earliest priority open to programs.
[[gnu::constructor(101)]] void check_before_main() { require_processor(); }
}  // namespace

}  // namespace collimate
