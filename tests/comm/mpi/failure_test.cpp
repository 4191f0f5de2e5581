#include <chrono>
#include <numeric>
#include <thread>

#include "collimate/base/timer.hpp"
#include "collimate/comm/process_grid.hpp"
#include "comm/mpi_test.hpp"
#include "support/owned.hpp"

// What ranks do where one of them fails, and what is left of it: nothing.
namespace collimate {
namespace {

using test::Owned;

Communicator& ranks() { return test_world()->ranks(); }
int me() { return ranks().rank(); }
int size() { return ranks().size(); }

std::string agreed_sentence(const std::function<void()>& step) {
  try {
    agree(ranks(), step);
  } catch (const AgreedError& error) {
    return fmt::format("{} {}", static_cast<int>(error.code()), error.what());
  }
  return "fine";
}

/// A message around the ring of all ranks arrives; what was left behind would take its place.
void expect_that_messages_arrive() {
  ranks().barrier();
  for (int round = 0; round < 3; ++round) {
    Owned<std::int32_t> mine(std::vector<std::int32_t>(100, 1000 * round + me())), theirs(100);
    const Message send{mine.tensor(), (me() + 1) % size()}, receive{theirs.tensor(), (me() + size() - 1) % size()};
    ranks().exchange({&send, 1}, {&receive, 1}, mine.stream());
    EXPECT_EQ(theirs.values, std::vector<std::int32_t>(100, 1000 * round + receive.peer));
  }
}

TEST(Agree, OneFailingRankStopsAllWithOneSentence) {
  EXPECT_EQ(agreed_sentence([] {}), "fine");
  const std::string sentence = agreed_sentence([&] {
    if (me() >= 1) fail_with(ExitCode::does_not_fit, "rank {} has no room", me());
  });
  EXPECT_EQ(sentence, size() == 1 ? "fine" : "3 [rank 1] rank 1 has no room");
  EXPECT_EQ(agreed_sentence([&] { if (me() == size() - 1) throw std::runtime_error("foreign"); }),
            size() == 1 ? "1 foreign" : fmt::format("1 [rank {}] foreign", size() - 1));
  EXPECT_EQ(agree(ranks(), [&] { return me() * 10; }), me() * 10);
  expect_that_messages_arrive();
}

// If the step communicated, the ranks in which it has failed would not answer.
TEST(Agree, AStepThatCommunicatesIsRefused) {
  if (size() == 1) return;  // one rank alone may ask itself
  const ProcessGrid grid(*test_world(), {1, size(), 1});
  Owned<float> data(8);
  const Message message{data.tensor(), (me() + 1) % size()};
  const std::vector<std::function<void()>> steps = {
      [&] { ranks().barrier(); },
      [&] { gather_all(ranks(), 1); },
      [&] { agree(ranks(), [] {}); },
      [&] { ranks().broadcast(data.tensor(), 0, data.stream()); },
      [&] { ranks().all_reduce_unordered(data.tensor(), data.stream()); },
      [&] { ranks().exchange({&message, 1}, {&message, 1}, data.stream()); },
      [&] { ranks().start({&message, 1}, {&message, 1}, data.stream())->wait(); },
      [&] { test_world()->split(0, 0); },
      [&] { gather_all(grid.along(Axis::data), 1); }};
  for (std::size_t i = 0; i < steps.size(); ++i) {
    EXPECT_NE(agreed_sentence(steps[i]).find("must not communicate"), std::string::npos) << "step " << i;
    const std::string sentence = agreed_sentence([&] {
      if (me() == 0) fail("no file");
      steps[i]();
    });
    EXPECT_EQ(sentence, "2 [rank 0] no file") << "step " << i;
  }
  expect_that_messages_arrive();
}

TEST(Messages, OfAnExchangeThatFailsAreNotSent) {
  Owned<std::int32_t> mine(100), theirs(100);
  const int next = (me() + 1) % size(), before = (me() + size() - 1) % size();
  const std::vector<Message> good = {{theirs.tensor(), before}}, bad = {{theirs.tensor(), before}, {mine.tensor(), size() + 5}};
  EXPECT_THROW(ranks().exchange({}, bad, mine.stream()), Error);
  expect_that_messages_arrive();
  const std::vector<Message> to_itself = {{mine.tensor(), next}, {mine.tensor(), me()}};  // which it does not receive
  if (size() > 1) {
    EXPECT_THROW(ranks().exchange(to_itself, good, mine.stream()), Error);
  }
  expect_that_messages_arrive();
}

TEST(Messages, OfATransferThatAnErrorEndsAreTakenBack) {
  if (size() == 1) return;
  const Stopwatch watch;
  try {
    Owned<std::int32_t> theirs(100);
    const Message receive{theirs.tensor(), (me() + 1) % size()};
    const auto transfer = ranks().start({}, {&receive, 1}, theirs.stream());  // nobody sends
    fail("an error");
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), "an error");
  }
  EXPECT_LT(watch.seconds(), 30);
  expect_that_messages_arrive();
}

// Where both ranks of a pair end so, their messages still meet.
TEST(Messages, OfTransfersThatAnErrorEndsOnBothSidesArrive) {
  Owned<std::int32_t> mine(std::vector<std::int32_t>(1 << 20, me())), theirs(1 << 20);
  const Message send{mine.tensor(), (me() + 1) % size()}, receive{theirs.tensor(), (me() + size() - 1) % size()};
  try {
    const auto transfer = ranks().start({&send, 1}, {&receive, 1}, mine.stream());
    throw AgreedError(ExitCode::failure, "all of us");
  } catch (const AgreedError&) {
  }
  EXPECT_EQ(theirs.values, std::vector<std::int32_t>(1 << 20, receive.peer));
  expect_that_messages_arrive();
}

TEST(Waiting, IsCountedInEveryCall) {
  if (size() == 1) return;
  const int late = size() - 1;
  Owned<float> data(64), all(64 * size());
  const Message from_late{all.tensor().slice(0, 64), late};
  std::vector<std::byte> bytes(8);
  std::vector<Message> to_all;
  for (int rank = 0; rank < late; ++rank) to_all.push_back({data.tensor(), rank});
  const auto exchange = [&](bool started) {
    const std::span<const Message> sends = me() == late ? std::span<const Message>(to_all) : std::span<const Message>();
    const std::span<const Message> receives = me() == late ? std::span<const Message>() : std::span(&from_late, 1);
    if (started)
      ranks().start(sends, receives, data.stream())->wait();
    else
      ranks().exchange(sends, receives, data.stream());
  };
  const std::vector<std::function<void()>> calls = {
      [&] { ranks().barrier(); },
      [&] { exchange(false); },
      [&] { exchange(true); },
      [&] { ranks().broadcast(data.tensor(), late, data.stream()); },
      [&] { ranks().all_gather(all.tensor(), data.tensor(), data.stream()); },
      [&] { ranks().all_reduce_unordered(data.tensor(), data.stream()); },
      [&] { ranks().gather_bytes(bytes); },
      [&] { ranks().broadcast_bytes(bytes, late); }};
  for (std::size_t i = 0; i < calls.size(); ++i) {
    ranks().barrier();
    const double before = ranks().waited();
    if (me() == late) std::this_thread::sleep_for(std::chrono::milliseconds(300));
    calls[i]();
    if (me() != late) {
      EXPECT_GT(ranks().waited() - before, 0.1) << "call " << i;
    }
  }
}

}  // namespace
}  // namespace collimate
