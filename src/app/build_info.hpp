#pragma once
#include <string>

namespace collimate {

/// What the bits of a run depend on beside its deck; logged, and stored in checkpoints.
struct BuildInfo {
  std::string program;          ///< version, compiler, build type
  std::string processor;        ///< model name of this node's processor
  std::string instruction_set;  ///< the extensions that the compiler was allowed to use; a restart asks for equal text
  std::string libraries;        ///< versions found at run time
};

/// Asks the libraries and the system; may be called before MPI_Init.
BuildInfo build_info();

std::string describe(const BuildInfo& info);  ///< all of it on one line
std::string headline(const BuildInfo& info);  ///< without the extensions, for logs

/// The same as a JSON object, for checkpoints: CheckpointNotes::build.
std::string to_json(const BuildInfo& info);

}  // namespace collimate
