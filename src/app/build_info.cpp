#include "app/build_info.hpp"

#include <fmt/format.h>
#include <hdf5.h>
#include <mpi.h>

#include <boost/version.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "app/processor.hpp"

namespace collimate {
namespace {

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const auto colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

std::string instruction_set() {
  std::string text;
  for (const Feature* feature = needed_features(); feature->name != nullptr; ++feature) {
    text += fmt::format("{}{}", text.empty() ? "" : " ", feature->name);
  }
  return text.empty() ? "baseline" : text;
}

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  if (MPI_Get_library_version(text, &length) != MPI_SUCCESS) return "unknown MPI";
  const std::string version(text, static_cast<std::size_t>(length));
  return version.substr(0, version.find_first_of(",\n"));  // the rest tells who built it, where
}

std::string libraries() {
  unsigned major = 0, minor = 0, release = 0;
  H5dont_atexit();  // its exit handler can crash after a write has failed on a full disk; must come before any other call
  H5get_libversion(&major, &minor, &release);
  return fmt::format("{}, HDF5 {}.{}.{}, fmt {}.{}.{}, Boost {}.{}.{}", mpi_version(), major, minor, release, FMT_VERSION / 10000,
                     FMT_VERSION / 100 % 100, FMT_VERSION % 100, BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000, BOOST_VERSION % 100);
}

}  // namespace

BuildInfo build_info() {
  return {fmt::format("collimate {} (g++ {}, {}, -march={})", COLLIMATE_VERSION, __VERSION__, COLLIMATE_BUILD_TYPE, built_for()),
          processor_name(), instruction_set(), libraries()};
}

std::string describe(const BuildInfo& info) {
  return fmt::format("{} on {} [{}] with {}", info.program, info.processor, info.instruction_set, info.libraries);
}

std::string headline(const BuildInfo& info) {
  return fmt::format("{}, {}\non {}", info.program, info.libraries, info.processor);
}

std::string to_json(const BuildInfo& info) {
  const nlohmann::json json{
      {"program", info.program}, {"processor", info.processor}, {"instruction_set", info.instruction_set}, {"libraries", info.libraries}};
  return json.dump();
}

}  // namespace collimate
