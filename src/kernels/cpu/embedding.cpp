#include "kernels/cpu/embedding.hpp"

#include <algorithm>

#include "kernels/cpu/lanes.hpp"
#include "kernels/cpu/parallel.hpp"

namespace collimate::kernels::cpu {

using Index = std::int64_t;

void embedding_forward(float* y, Numbers table, const std::int32_t* tokens, Index first, bool add, Index rows, Index entries,
                       Index columns) {
  const auto look_up = [=](const auto* values) {
    parallel_rows(rows, columns, [=](Index r) {
      const Index entry = tokens[r] - first;
      if (tokens[r] < 0 || entry < 0 || entry >= entries) return;
      const auto* from = values + entry * columns;
      float* to = y + r * columns;
      if (add)
        for (Index c = 0; c < columns; c += lanes) store(to + c, load(to + c, columns - c) + load(from + c, columns - c), columns - c);
      else
        std::transform(from, from + columns, to, [](auto value) { return widened(value); });
    });
  };
  std::visit(look_up, table);
}

void embedding_backward(float* dtable, const float* dy, const std::int32_t* tokens, Index first, Index rows, Index entries, Index columns) {
  constexpr Index strip = 4 * lanes;  // columns are shared out, so that every thread adds the rows in index order
  parallel_tiles(tiles_of(columns, strip), rows * columns > serial_elements, [=](Index tile) {
    const Index begin = tile * strip, end = std::min(columns, begin + strip);
    for (Index r = 0; r < rows; ++r) {
      const Index entry = tokens[r] - first;
      if (tokens[r] < 0 || entry < 0 || entry >= entries) continue;
      float* to = dtable + entry * columns;
      const float* from = dy + r * columns;
      for (Index c = begin; c < end; c += lanes) store(to + c, load(to + c, end - c) + load(from + c, end - c), end - c);
    }
  });
}

}  // namespace collimate::kernels::cpu
