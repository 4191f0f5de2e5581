#include "collimate/rlhf/keeping.hpp"

#include <gmock/gmock.h>

#include "collimate/rlhf/stages.hpp"
#include "collimate/rlhf/training.hpp"
#include "rlhf/mpi/bench.hpp"

// What the evaluations of a stage decide, and what the report at the end of a run says.
namespace collimate::rlhf {
namespace {

using testing::HasSubstr;
using Steps = std::vector<std::int64_t>;

TEST(Keeping, OfEqualMeasuresTheFirstIsTheBest) {
  Bench bench("keeping");
  bench.options.run.keep_best = true;
  Session session = bench.session();
  struct Row {
    std::string stage;
    const char* key;
    double better;  // than 0.5
  };
  for (const Row& row : {Row{"sft", "sft.eval_loss", 0.4}, Row{"reward", "reward.accuracy", 0.6}, Row{"ppo", "ppo.reward_after", 0.6}}) {
    const auto best = [&](double value, std::int64_t step) {
      session.summary.set(row.key, value);
      return note_evaluation(session, row.stage, step);
    };
    EXPECT_TRUE(best(0.5, 1)) << row.key;
    EXPECT_FALSE(best(0.5, 2)) << row.key;
    EXPECT_FALSE(best(1 - row.better, 3)) << row.key;
    EXPECT_TRUE(best(row.better, 4)) << row.key;
    EXPECT_EQ(session.summary.number(row.stage + ".best_step"), 4);
  }
}

TEST(Keeping, TheEvaluationAtTheEndOfAStageCountsToo) {
  Bench bench("keeping");
  bench.options.run.keep_best = true;
  Session session = bench.session();
  Steps learned, evaluated, saved;
  const auto evaluate = [&](std::int64_t step) {
    evaluated.push_back(step);
    session.summary.set("sft.eval_loss", 1 / static_cast<double>(step));
  };
  const auto learn = [&](std::int64_t step) { learned.push_back(step); };
  run_steps(session, {"sft", 0, 3, 2, 0}, learn, evaluate, [&](std::int64_t step) { saved.push_back(step); });
  EXPECT_EQ(learned, (Steps{1, 2, 3}));
  EXPECT_EQ(evaluated, (Steps{2, 3}));
  EXPECT_EQ(saved, Steps{2}) << "the best so far";
  EXPECT_EQ(session.summary.number("sft.best_step"), 3);
}

TEST(ClosingReport, SharesOfTimeAreOfAllStagesAndRawScoresOfScorersThatHaveThem) {
  Bench bench("closing");
  Session session = bench.session();
  session.seconds = {{"sft", 30}, {"sft.update", 15}, {"evaluate", 10}};
  session.summary.set("ppo.raw_reward_before", 2.5);
  bench.options.ppo.scorer.kind = "model";
  const std::string model = closing_report(session);
  EXPECT_THAT(model, HasSubstr(fmt::format("{:<44} {:>10.1f} {:>8.0f} %\n", "  sft", 30.0, 75.0)));
  EXPECT_THAT(model, HasSubstr(fmt::format("{:<44} {:>10.1f} {:>8.0f} %\n", "    update", 15.0, 38.0)));
  EXPECT_THAT(model, HasSubstr(fmt::format("{:<44} {:>10.1f} {:>8.0f} %\n", "  evaluate", 10.0, 25.0)));
  EXPECT_THAT(model, testing::Not(HasSubstr("before normalisation")));
  bench.options.ppo.scorer.kind = "length";
  EXPECT_THAT(closing_report(session), HasSubstr("the same, before normalisation and sign         2.500"));
}

}  // namespace
}  // namespace collimate::rlhf
