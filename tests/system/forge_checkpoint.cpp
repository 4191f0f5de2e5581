// forge_checkpoint FROM TO OLD NEW: a copy of a checkpoint in whose notes the text OLD is NEW, as another machine or version could have
// written it. The file itself cannot be edited: its checksum guards it.
#include <fmt/format.h>

#include <numeric>
#include <vector>

#include "collimate/base/error.hpp"
#include "collimate/io/checkpoint.hpp"

int main(int, char** arguments) {
  using namespace collimate;
  try {
    const CheckpointReader from(arguments[1]);
    CheckpointWriter to(arguments[2], 0, 1);
    for (const CheckpointTensor& tensor : from.tensors()) {
      std::vector<float> values(tensor.shape.count());
      from.read(tensor.name, 0, tensor.shape.count(), values.data());
      to.write(tensor.name, tensor.shape, 0, std::span<const float>(values));
    }
    to.attribute("{}");
    to.close_part();
    std::string meta = from.meta();
    const std::string old = arguments[3];
    const std::size_t at = meta.find(old);
    require(at != std::string::npos, "the notes of '{}' do not hold '{}'", arguments[1], old);
    to.publish(meta.replace(at, old.size(), arguments[4]));
  } catch (const Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
  return 0;
}
