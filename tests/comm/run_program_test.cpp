#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include "collimate/comm/world.hpp"

namespace collimate {
namespace {

/// Exit code and standard error of a process of its own: MPI can be started once only in each.
std::pair<int, std::string> run_alone(const std::function<int(World&)>& program) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    int code = 0;
    {
      World world;
      code = run_program(world, [&] { return program(world); });
    }
    std::fflush(stderr);
    _exit(code);
  }
  close(ends[1]);
  std::string text(65536, '\0');
  std::size_t length = 0;
  for (ssize_t got = 1; got > 0; length += static_cast<std::size_t>(std::max<ssize_t>(got, 0)))
    got = read(ends[0], text.data() + length, text.size() - length);
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  text.resize(length);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text};
}

TEST(World, WorksWithoutMpirunAndTurnsErrorsIntoExitCodes) {
  const auto [fine, nothing] = run_alone([](World& world) { return world.size() == 1 && world.rank() == 0 && world.nodes() == 1 ? 0 : 9; });
  EXPECT_EQ(fine, 0) << nothing;
  const auto [code, text] = run_alone([](World&) -> int { fail_with(ExitCode::does_not_fit, "too large"); });
  EXPECT_EQ(code, 3);
  EXPECT_THAT(text, testing::HasSubstr("error: too large\n"));
  const auto [agreed, sentence] = run_alone([](World& world) -> int {
    agree(world.ranks(), [] { fail("bad key"); });
    return 0;
  });
  EXPECT_EQ(agreed, 2);
  EXPECT_THAT(sentence, testing::HasSubstr("error: bad key\n"));
}

}  // namespace
}  // namespace collimate
