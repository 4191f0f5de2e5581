#include "collimate/optim/optimizer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "collimate/base/error.hpp"
#include "collimate/base/random.hpp"
#include "support/numbers.hpp"

namespace collimate {
namespace {

using kernels::AdamW;
using kernels::EpsilonForm;

ParameterLayout small_layout(int shards, bool tied) {
  ParameterLayout layout(shards);
  layout.open_chunk("table");
  layout.add("table", {9, 40}, Split::rows, shard_bounds(9, shards), true, {1});
  layout.close_chunk();
  layout.open_chunk("block");
  layout.add("gain", {40}, false, {0, 1});
  layout.add("weight", {40, 50}, Split::columns, shard_bounds(50, shards), true, {0.1});
  layout.add("up.bias", {50}, Split::rows, shard_bounds(50, shards), false, {0.1});
  layout.close_chunk();
  if (tied) layout.tie(0);
  return layout;
}

/// A store of small_layout that learns, with memory of its own.
struct Learner {
  std::unique_ptr<Device> device = make_device();
  MemoryPlan plan{*device};
  ParameterStore store;
  explicit Learner(int shards = 2, bool tied = false) : store("pupil", small_layout(shards, tied), plan, {}, {.most_grains = 1}) {
    plan.commit();
    store.clear();
    store.initialise(4);
  }
  /// One grain whose gradient of element i of a parameter is gradient(name, i); that of the tied second use has the name "tied".
  void learn(const std::function<float(const std::string&, std::int64_t)>& gradient) {
    store.begin_step(1);
    for (int unit = 0; unit < std::ssize(store.layout().units()); ++unit) {
      const bool tie = unit >= store.layout().chunk_units();
      const Tensor here = store.gradient(unit).gradient;
      for (const Parameter& p : store.layout().parameters())
        if (tie ? p.name == "table" : p.chunk == unit) write(here, p, tie ? "tied" : p.name, gradient);
      store.reduce(unit);
    }
    store.finish_step();
  }
  std::vector<float> read(Kind kind, const std::string& name) const {
    std::vector<float> out(store.layout().parameter(name).shape.count());
    store.read(kind, name, 0, out);
    return out;
  }

 private:
  void write(const Tensor& chunk, const Parameter& p, const std::string& name,
             const std::function<float(const std::string&, std::int64_t)>& gradient) {
    const std::int64_t base = store.layout().chunks()[p.chunk].offset;
    store.layout().for_each_run(p, 0, p.shape.count(), [&](std::int64_t element, std::int64_t offset, std::int64_t length) {
      std::vector<float> numbers(length);
      for (std::int64_t i = 0; i < length; ++i) numbers[i] = gradient(name, element + i);
      test::set_numbers(chunk.slice(offset - base, length), numbers);
    });
  }
};

float some_gradient(const std::string& name, std::int64_t i, int step) {
  // Over eight orders of magnitude, so that epsilon matters for some elements.
  const RandomKey key(21, Purpose::data_order);
  const auto which = static_cast<std::uint32_t>(name.size());
  return static_cast<float>(key.normal(i, which, step) * std::pow(10.0, -static_cast<double>(i % 9)));
}

/// Adam as in Kingma and Ba (2015), algorithm 1 and section 2's second form, with the decay of Loshchilov and Hutter (2019), in fp64.
struct Oracle {
  double value, first = 0, second = 0;
  void step(double g, const AdamW& how, double decay, int t) {
    first = how.beta1 * first + (1 - how.beta1) * g;
    second = how.beta2 * second + (1 - how.beta2) * g * g;
    const double c1 = 1 - std::pow(how.beta1, t), c2 = 1 - std::pow(how.beta2, t);
    value -= how.rate * decay * value;
    if (how.form == EpsilonForm::torch)
      value -= how.rate * (first / c1) / (std::sqrt(second / c2) + how.epsilon);
    else
      value -= how.rate * std::sqrt(c2) / c1 * first / (std::sqrt(second) + how.epsilon);
  }
};

TEST(Optimizer, BothFormsOfEpsilonFollowFp64For50Steps) {
  for (const EpsilonForm form : {EpsilonForm::torch, EpsilonForm::tf}) {
    Learner pupil;
    AdamW how;
    how.beta1 = 0.9, how.beta2 = 0.99, how.epsilon = 1e-5, how.decay = 0.1, how.form = form;
    Optimizer optimizer(pupil.store, how, 0);
    std::map<std::string, std::vector<Oracle>> oracle;
    for (const Parameter& p : pupil.store.layout().parameters())
      for (const float x : pupil.read(Kind::value, p.name)) oracle[p.name].push_back({x});
    for (int t = 1; t <= 50; ++t) {
      how.rate = 0.01 + 0.001 * t;
      pupil.learn([&](const std::string& name, std::int64_t i) { return some_gradient(name, i, t); });
      optimizer.step(how.rate);
      EXPECT_EQ(optimizer.steps(), t);
      for (const Parameter& p : pupil.store.layout().parameters()) {
        const auto values = pupil.read(Kind::value, p.name);
        for (std::size_t i = 0; i < values.size(); ++i) {
          Oracle& o = oracle[p.name][i];
          o.step(some_gradient(p.name, static_cast<std::int64_t>(i), t), how, p.decays ? how.decay : 0, t);
          ASSERT_NEAR(values[i], o.value, 2e-7 * (4 + t) * (1 + std::abs(o.value))) << p.name << " " << i << " step " << t;
        }
      }
    }
  }
}

TEST(Optimizer, TheFormsDifferByWhereEpsilonStands) {
  std::vector<double> moved;
  for (const EpsilonForm form : {EpsilonForm::torch, EpsilonForm::tf}) {
    Learner pupil;
    AdamW how;
    how.epsilon = 1e-4, how.form = form;
    Optimizer optimizer(pupil.store, how, 0);
    const auto before = pupil.read(Kind::value, "weight");
    pupil.learn([](const std::string&, std::int64_t) { return 1e-4f; });
    optimizer.step(1);
    moved.push_back(before[0] - pupil.read(Kind::value, "weight")[0]);
  }
  EXPECT_NEAR(moved[0], 0.5, 1e-5);                             // g / (|g| + epsilon)
  EXPECT_NEAR(moved[1], 1 / (1 + 1 / std::sqrt(0.001)), 1e-5);  // g / (|g| + epsilon / sqrt(1 - beta2))
}

TEST(Optimizer, NormsAndBiasesDoNotDecay) {
  Learner pupil;
  AdamW how;
  how.decay = 0.5;
  Optimizer optimizer(pupil.store, how, 0);
  std::map<std::string, std::vector<float>> before;
  for (const Parameter& p : pupil.store.layout().parameters()) before[p.name] = pupil.read(Kind::value, p.name);
  pupil.learn([](const std::string&, std::int64_t) { return 0.0f; });
  optimizer.step(0.25);
  for (const Parameter& p : pupil.store.layout().parameters()) {
    const auto after = pupil.read(Kind::value, p.name);
    for (std::size_t i = 0; i < after.size(); ++i) EXPECT_EQ(after[i], before[p.name][i] * (p.decays ? 0.875f : 1.0f)) << p.name;
  }
}

// Small gradients too: what is added to the norm, as some programs do, would change them.
TEST(Optimizer, ClipsByTheGlobalNorm) {
  for (const float size : {1.0f, 1e-4f})
    for (const double clip : {0.0, 0.5 * size, 1e6}) {
      Learner pupil;
      Optimizer optimizer(pupil.store, AdamW{}, clip);
      const auto gradient = [&](const std::string& name, std::int64_t i) { return size * some_gradient(name, i, 1); };
      double squares = 0;
      for (const Parameter& p : pupil.store.layout().parameters())
        for (std::int64_t i = 0; i < p.shape.count(); ++i) squares += std::pow(static_cast<double>(gradient(p.name, i)), 2);
      const double norm = std::sqrt(squares), scale = clip > 0 ? std::min(1.0, clip / norm) : 1.0;
      pupil.learn(gradient);
      const StepReport report = optimizer.step(0.1);
      EXPECT_NEAR(report.gradient_norm / norm, 1, 1e-12) << "the norm before clipping is reported";
      EXPECT_EQ(report.rate, 0.1);
      for (const Parameter& p : pupil.store.layout().parameters()) {
        const auto moment = pupil.read(Kind::first_moment, p.name);
        for (std::size_t i = 0; i < moment.size(); ++i)
          ASSERT_NEAR(moment[i], 0.1 * scale * gradient(p.name, static_cast<std::int64_t>(i)), 1e-6 * std::abs(moment[i]) + 1e-16);
      }
    }
}

TEST(Optimizer, TheNormCountsEveryParameterOnceWhateverTheShards) {
  for (const int shards : {1, 2, 4, 16})
    for (const bool tied : {false, true}) {
      Learner pupil(shards, tied);
      Optimizer optimizer(pupil.store, AdamW{}, 0);
      pupil.learn([](const std::string& name, std::int64_t) { return name == "tied" ? 2.0f : name == "table" ? 1.0f : 0.5f; });
      // A tied matrix has one gradient, the sum of both uses: not two that are counted apart.
      const double expected = 9 * 40 * (tied ? 9.0 : 1.0) + (40 + 40 * 50 + 50) * 0.25;
      EXPECT_DOUBLE_EQ(optimizer.step(0.1).gradient_norm, std::sqrt(expected)) << shards << " shards";
      const std::vector<float> values = test::numbers_of(pupil.store.units(Kind::value));
      double sum = 0, padded = 0;
      for (std::int64_t i = 0; i < pupil.store.layout().size(); ++i) padded += std::abs(values[i]);
      for (const Parameter& p : pupil.store.layout().parameters())
        for (const float x : pupil.read(Kind::value, p.name)) sum += std::abs(x);
      EXPECT_NEAR(padded, sum, 1e-9 * sum) << "padding stays 0";
    }
}

TEST(Optimizer, ANaNGradientChangesNothing) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Learner pupil;
    Optimizer optimizer(pupil.store, AdamW{}, 1);
    pupil.learn([](const std::string& name, std::int64_t i) { return some_gradient(name, i, 1); });
    optimizer.step(0.1);
    const auto state = [&] {
      return std::vector{test::bits_hash(pupil.store.units(Kind::value)), test::bits_hash(pupil.store.units(Kind::first_moment)),
                         test::bits_hash(pupil.store.units(Kind::second_moment)), static_cast<std::uint64_t>(optimizer.steps())};
    };
    const auto before = state();
    pupil.learn([&](const std::string& name, std::int64_t i) { return name == "up.bias" && i == 49 ? bad : 0.1f; });
    try {
      optimizer.step(0.1);
      ADD_FAILURE() << "a gradient of " << bad << " was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::failure);
      EXPECT_NE(std::string(error.what()).find("pupil"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("step 2"), std::string::npos) << error.what();
    }
    EXPECT_EQ(state(), before);
  }
}

TEST(Optimizer, ARestartedCountGoesOnWithTheSameBits) {
  Learner through, stopped;
  Optimizer first(through.store, AdamW{}, 1), second(stopped.store, AdamW{}, 1);
  const auto learn = [](Learner& pupil, Optimizer& optimizer, int t) {
    pupil.learn([&](const std::string& name, std::int64_t i) { return some_gradient(name, i, t); });
    optimizer.step(0.01);
  };
  for (int t = 1; t <= 6; ++t) learn(through, first, t);
  for (int t = 1; t <= 3; ++t) learn(stopped, second, t);
  Optimizer again(stopped.store, AdamW{}, 1);
  again.set_steps(3);
  for (int t = 4; t <= 6; ++t) learn(stopped, again, t);
  EXPECT_EQ(again.steps(), 6);
  EXPECT_EQ(test::bits_hash(through.store.units(Kind::value)), test::bits_hash(stopped.store.units(Kind::value)));
}

TEST(LearningRate, EndpointsAreExact) {
  for (const char* shape : {"constant", "linear", "cosine"}) {
    const LearningRate rate{3e-4, 10, 100, shape, 0.1};
    EXPECT_EQ(rate.at(1), 3e-4 * 1 / 10) << shape;
    EXPECT_EQ(rate.at(5), 3e-4 * 5 / 10) << shape;
    EXPECT_EQ(rate.at(10), 3e-4) << shape;
    EXPECT_EQ(rate.at(11), 3e-4) << shape << " the first after the warm-up";
    const double end = std::string(shape) == "constant" ? 3e-4 : 3e-4 * 0.1;
    EXPECT_EQ(rate.at(101), end) << shape << " after its last step";
    EXPECT_EQ(rate.at(102), end) << shape;
  }
  for (const char* shape : {"linear", "cosine"}) {
    EXPECT_GT((LearningRate{1, 0, 7, shape, 0}.at(7)), 0) << "the last step learns";
    EXPECT_EQ((LearningRate{1, 0, 7, shape, 0}.at(8)), 0);
    EXPECT_EQ((LearningRate{1, 0, 1, shape, 0}.at(1)), 1) << "a single step learns";
    EXPECT_EQ((LearningRate{1, 5, 6, shape, 0}.at(6)), 1);
    EXPECT_EQ((LearningRate{1, 5, 5, shape, 0}.at(5)), 1) << "all steps are warm-up";
  }
  EXPECT_DOUBLE_EQ((LearningRate{1, 0, 7, "linear", 0}.at(7)), 1.0 / 7);
}

TEST(LearningRate, BetweenTheEndsItFollowsTheShape) {
  const LearningRate linear{2, 10, 110, "linear", 0.2}, cosine{2, 10, 110, "cosine", 0.2};
  for (int step = 11; step <= 110; ++step) {
    const double done = (step - 11) / 100.0;
    EXPECT_NEAR(linear.at(step), 2 - 1.6 * done, 1e-12);
    EXPECT_NEAR(cosine.at(step), 0.4 + 0.8 * (1 + std::cos(M_PI * done)), 1e-12);
  }
}

}  // namespace
}  // namespace collimate
