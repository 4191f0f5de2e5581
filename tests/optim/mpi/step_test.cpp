#include <cmath>
#include <limits>

#include "collimate/optim/optimizer.hpp"
#include "comm/mpi_test.hpp"

// What all ranks do where one of them cannot do its part of an optimizer step: they stop with its sentence, and none waits for it.
namespace collimate {
namespace {

Communicator& ranks() { return test_world()->ranks(); }
int last() { return ranks().size() - 1; }

ParameterLayout small_layout() {
  ParameterLayout layout(1);
  layout.open_chunk("block");
  layout.add("weight", {90, 50}, true, {0.1});
  layout.close_chunk();
  return layout;
}

/// A store whose one parameter is divided over all ranks, and that has summed a gradient of ones (or `bad` on the last rank).
struct Learner {
  ProcessGrid grid{*test_world(), {1, ranks().size(), 1}};
  std::unique_ptr<Device> device = make_cpu_device();
  MemoryPlan plan{*device};
  ParameterStore store;
  explicit Learner(int zero)
      : store("pupil", small_layout(), plan, {.grid = &grid, .zero = zero}, {.most_grains = ranks().size()}) {
    plan.commit();
    store.initialise(4);
  }
  void learn(float bad = 1) {
    store.begin_step(ranks().size());
    const Tensor gradient = store.gradient(0).gradient;
    std::fill_n(gradient.as<float>(), 4500, 1.0f);
    if (ranks().rank() == last()) gradient.as<float>()[17] = bad;
    store.reduce(0);
    store.finish_step();
  }
};

/// What all ranks say together.
std::string agreed(const std::function<void()>& work) {
  std::string sentence;
  try {
    work();
  } catch (const AgreedError& error) {
    sentence = error.what();
  }
  for (const std::string& other : gather_all(ranks(), sentence)) EXPECT_EQ(other, sentence);
  return sentence;
}

std::string from_last(const std::string& sentence) {
  return ranks().size() == 1 ? sentence : fmt::format("[rank {}] {}", last(), sentence);
}

TEST(OptimizerStep, ARankThatCannotUpdateStopsAll) {
  for (int zero = 0; zero <= 3; ++zero) {
    Learner pupil(zero);
    pupil.learn();
    Optimizer fine(pupil.store, {}, 0), broken(pupil.store, {.beta1 = 2}, 0);
    const std::string sentence =
        agreed([&] { (ranks().rank() == last() ? broken : fine).step(1e-3); });
    EXPECT_EQ(sentence.substr(0, 30), from_last("adamw needs both betas to be at least 0").substr(0, 30)) << "ZeRO " << zero;
    EXPECT_EQ(fine.steps(), 0);
  }
}

TEST(OptimizerStep, ARankThatCannotSquareStopsAll) {
  for (int zero = 0; zero <= 3; ++zero) {
    Learner pupil(zero), idle(zero);
    pupil.learn();
    ParameterStore& store = ranks().rank() == last() ? idle.store : pupil.store;  // which has no gradient
    Optimizer optimizer(store, {}, 0);
    EXPECT_NE(agreed([&] { optimizer.step(1e-3); }), "") << "ZeRO " << zero;
  }
}

TEST(OptimizerStep, AGradientThatIsNotFiniteStopsAllBeforeAnythingIsChanged) {
  for (int zero = 0; zero <= 3; ++zero) {
    Learner pupil(zero);
    pupil.learn(std::numeric_limits<float>::infinity());
    const auto before = pupil.store.hashes(Kind::value);
    Optimizer optimizer(pupil.store, {}, 1);
    const std::string sentence = agreed([&] { optimizer.step(1e-3); });
    EXPECT_EQ(sentence.substr(0, 31), "the gradient norm of pupil is n") << "ZeRO " << zero;
    EXPECT_EQ(pupil.store.hashes(Kind::value), before);
  }
}

TEST(OptimizerStep, OtherwiseItIsDone) {
  for (int zero = 0; zero <= 3; ++zero) {
    Learner pupil(zero);
    pupil.learn();
    Optimizer optimizer(pupil.store, {}, 1);
    const double norm = optimizer.step(1e-3).gradient_norm;
    EXPECT_NEAR(norm, ranks().size() * std::sqrt(4500.0), 1e-9);
    EXPECT_EQ(optimizer.steps(), 1);
  }
}

}  // namespace
}  // namespace collimate

int main(int argc, char** argv) { return collimate::run_mpi_tests(argc, argv); }
