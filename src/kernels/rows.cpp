#include "collimate/kernels/rows.hpp"

#include <omp.h>

#include <algorithm>
#include <exception>
#include <vector>

#include "kernels/cpu/parallel.hpp"

namespace collimate::kernels {

void in_parts(std::int64_t rows, const std::function<void(std::int64_t begin, std::int64_t count)>& body) {
  const std::int64_t parts = std::min<std::int64_t>(rows, omp_get_max_threads());
  if (parts <= 1) return body(0, rows);
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(parts));
  cpu::parallel_tiles(parts, true, [&](std::int64_t part) {
    const std::int64_t begin = rows * part / parts, end = rows * (part + 1) / parts;
    try {
      body(begin, end - begin);
    } catch (...) {
      errors[static_cast<std::size_t>(part)] = std::current_exception();
    }
  });
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

}  // namespace collimate::kernels
