#include "kernels/cpu/parallel.hpp"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace collimate::kernels::cpu {
namespace {

/// Turns of a waiting loop, each a few ten nanoseconds, before a thread gives its core away.
constexpr int patience = 2000;

/// The threads that help the calling one. They look for work for a while and then sleep; handing them a loop costs two messages between
/// caches, a third of what an OpenMP region costs. A loop ends when its tiles are done, so that nobody waits for a helper
/// that does not run.
class Helpers {
 public:
  ~Helpers() {
    stop_ = true;
    wake();
    for (std::thread& thread : threads_) thread.join();
  }

  void run(std::int64_t tiles, TileWork work, const void* body, int helpers, Shares shares) {
    if (helpers < 1 || busy_.exchange(true, std::memory_order_acquire)) return work(body, 0, tiles);
    while (static_cast<int>(threads_.size()) < helpers)
      threads_.emplace_back([this, index = static_cast<int>(threads_.size())] { help(index); });
    constexpr std::int64_t most = 0xFFFFFFFF;  // tiles of a ticket
    for (std::int64_t first = 0; first < tiles; first += most) share({work, body, first, std::min(most, tiles - first), helpers, shares});
    busy_.store(false, std::memory_order_release);
  }

 private:
  struct Loop {
    TileWork work;
    const void* body;
    std::int64_t first, tiles;
    int helpers;
    Shares shares;
  };

  void share(const Loop& loop) {
    // No ticket is left of the loop before, so nobody who reads these now can still take one.
    work_.store(loop.work, std::memory_order_relaxed);
    body_.store(loop.body, std::memory_order_relaxed);
    end_.store(loop.first + loop.tiles, std::memory_order_relaxed);
    helpers_.store(loop.helpers, std::memory_order_relaxed);
    least_.store(loop.shares == Shares::equal ? (loop.tiles + loop.helpers) / (loop.helpers + 1) : 1, std::memory_order_relaxed);
    unfinished_.store(loop.tiles, std::memory_order_relaxed);
    ticket_.store(((ticket_.load(std::memory_order_relaxed) >> 32) + 1) << 32 | static_cast<std::uint64_t>(loop.tiles));
    if (sleeping_.load() > 0) wake();
    while (take_part()) {
    }
    for (int turn = 0; unfinished_.load(std::memory_order_acquire) > 0; ++turn)
      turn < patience ? _mm_pause() : static_cast<void>(sched_yield());
  }

  /// Does some of the tiles that nobody has taken; false where there are none.
  bool take_part(int index = -1) {
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    const auto left = static_cast<std::int64_t>(ticket & 0xFFFFFFFF);
    const int helpers = helpers_.load(std::memory_order_relaxed);
    if (left == 0 || index >= helpers) return false;
    const TileWork work = work_.load(std::memory_order_relaxed);
    const void* body = body_.load(std::memory_order_relaxed);
    const std::int64_t begin = end_.load(std::memory_order_relaxed) - left;
    const std::int64_t count = std::min(left, std::max(least_.load(std::memory_order_relaxed), left / (2 * (helpers + 1))));
    // Where the ticket is still the one read, so is the loop that was read after it.
    if (!ticket_.compare_exchange_strong(ticket, ticket - static_cast<std::uint64_t>(count), std::memory_order_acq_rel)) return true;
    work(body, begin, begin + count);
    unfinished_.fetch_sub(count, std::memory_order_release);
    return true;
  }

  void help(int index) {
    const FlushSubnormals flush;
    for (int turn = 0; !stop_.load(std::memory_order_relaxed); ++turn) {
      if (take_part(index)) turn = 0;
      _mm_pause();
      if (turn < patience) continue;
      const std::uint64_t seen = ticket_.load();
      const int call = calls_.load();
      sleeping_.fetch_add(1);
      if (ticket_.load() == seen && !stop_)
        calls_.wait(call);  // who publishes a ticket sees this thread sleep, or this thread sees the ticket
      sleeping_.fetch_sub(1);
      turn = 0;
    }
  }

  void wake() {
    calls_.fetch_add(1);
    calls_.notify_all();
  }

  alignas(64) std::atomic<std::uint64_t> ticket_ = 0;  // number of the loop << 32 | tiles that nobody has taken
  std::atomic<TileWork> work_ = nullptr;
  std::atomic<const void*> body_ = nullptr;
  std::atomic<std::int64_t> end_ = 0;
  std::atomic<int> helpers_ = 0;
  std::atomic<std::int64_t> least_ = 1;  // tiles of a share
  alignas(64) std::atomic<std::int64_t> unfinished_ = 0;
  alignas(64) std::atomic<int> sleeping_ = 0;
  std::atomic<int> calls_ = 0;
  std::atomic<bool> stop_ = false, busy_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

void share_tiles(std::int64_t tiles, TileWork work, const void* body, Shares shares) {
  static Helpers helpers;
  helpers.run(tiles, work, body, omp_get_max_threads() - 1, shares);
}

}  // namespace collimate::kernels::cpu
