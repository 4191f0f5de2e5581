#pragma once
#include <cstddef>

namespace collimate {

/// An instruction set extension that the compiler was allowed to use, and whether this processor has it.
struct Feature {
  const char* name;
  bool present;
};

/// The -march value of this build.
const char* built_for();

/// What this build needs; the list ends with a feature without a name.
const Feature* needed_features();

/// Writes the names of the absent features, separated by ", ", into `text` (cut at `size`) and returns their number.
int missing_features(const Feature* needed, char* text, std::size_t size);

/// Ends the program with a sentence and exit code 2 if a feature is absent.
void require_features(const char* arch, const Feature* needed);

/// Ends the program if this processor lacks what this build needs. It also runs by itself before main, and before the
/// initialisers of other files, in every program that links this file; main calls it to have it linked.
void require_processor();

}  // namespace collimate
