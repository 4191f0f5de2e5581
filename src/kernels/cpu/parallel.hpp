#pragma once
#include <xmmintrin.h>

#include <cstdint>

namespace collimate::kernels::cpu {

/// Flushes subnormal inputs and results to zero in this thread while it lives (numerics contract R6).
class FlushSubnormals {
 public:
  FlushSubnormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040u); }  // FTZ and DAZ
  ~FlushSubnormals() { _mm_setcsr(saved_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  unsigned saved_;
};

/// Work on the tiles [begin, end) of a loop whose body lies at `body`.
using TileWork = void (*)(const void* body, std::int64_t begin, std::int64_t end);

/// How threads share a loop. Decreasing: early shares are large, late ones small, so that all end together. Equal: one share each, for
/// loops of a few microseconds, where every share costs a message between caches.
enum class Shares { decreasing, equal };

/// Does the tiles [0, tiles) with as many threads as OpenMP would use, which share them in the order of the list, and waits for the
/// last. Called inside itself, or by two threads at once, the second call does its tiles alone.
void share_tiles(std::int64_t tiles, TileWork work, const void* body, Shares shares);

/// Calls body(tile) for every tile in [0, tiles), each by one thread; which thread must not matter to the result.
/// The body must not throw. With `fork` false the calling thread does them all: for work too small to share.
template <class Body>
void parallel_tiles(std::int64_t tiles, bool fork, const Body& body, Shares shares = Shares::decreasing) {
  const TileWork work = [](const void* b, std::int64_t begin, std::int64_t end) {
    for (std::int64_t tile = begin; tile < end; ++tile) (*static_cast<const Body*>(b))(tile);
  };
  const FlushSubnormals flush;
  if (fork && tiles > 1)
    share_tiles(tiles, work, &body, shares);
  else
    work(&body, 0, tiles);
}

constexpr std::int64_t tiles_of(std::int64_t extent, std::int64_t tile) { return (extent + tile - 1) / tile; }

/// Elements below which waking the other threads costs more than it saves.
constexpr std::int64_t serial_elements = 8192;

/// Calls body(begin, end) for pieces of [0, count) elements.
template <class Body>
void parallel_elements(std::int64_t count, const Body& body) {
  constexpr std::int64_t piece = 8192;
  parallel_tiles(tiles_of(count, piece), count > serial_elements,
                 [&](std::int64_t tile) { body(tile * piece, tile * piece + piece < count ? tile * piece + piece : count); });
}

/// Calls body(row) for every row, a few rows of `columns` elements per tile.
template <class Body>
void parallel_rows(std::int64_t rows, std::int64_t columns, const Body& body) {
  const std::int64_t piece = columns >= 4096 ? 1 : 4096 / (columns < 1 ? 1 : columns) + 1;
  parallel_tiles(tiles_of(rows, piece), rows * columns > serial_elements, [&](std::int64_t tile) {
    const std::int64_t end = (tile + 1) * piece < rows ? (tile + 1) * piece : rows;
    for (std::int64_t row = tile * piece; row < end; ++row) body(row);
  });
}

}  // namespace collimate::kernels::cpu
