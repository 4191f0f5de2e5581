#include <cmath>
#include <set>

#include "comm/mpi_test.hpp"
#include "support/copy_task.hpp"

// Norm, clipping and counts of parameters that are replicated, tied and split (details 39 and 42): each element counts once, on every grid.
namespace collimate::test {
namespace {

constexpr std::int64_t grains = 5;
constexpr double clip = 0.01, beta1 = 0.9;

const CopyTask task{.samples_per_grain = 3};

struct Element {
  std::int64_t parameter, element;
  float gradient, moment;
};

/// What this rank counts of a kind, parameter by parameter.
std::vector<Element> counted(const ParameterStore& store, Kind kind) {
  std::vector<Element> out;
  const auto& parameters = store.layout().parameters();
  for (std::size_t p = 0; p < parameters.size(); ++p)
    store.for_each_run(kind, parameters[p], 0, parameters[p].shape.count(), Extent::counted,
                       [&](std::int64_t element, Tensor run) {
                         std::vector<float> data(run.count());
                         store.staging().get(data, run, run.device().stream());
                         for (std::int64_t i = 0; i < run.count(); ++i) out.push_back({static_cast<std::int64_t>(p), element + i, data[i], 0});
                       });
  return out;
}

/// What a learner knows after one step.
struct Learned {
  double squares = 0, norm = 0;
  std::uint64_t values = 0;
  std::int64_t parameters = 0;
  std::vector<Element> elements;  // of all ranks, each what it counts

  Learned(const ModelConfig& config, const Division& division) {
    Pupil pupil(task, config, division, grains);
    ParameterStore& store = pupil.one.engine.store();
    Optimizer optimizer(store, {.beta1 = beta1, .epsilon = 1e-8}, clip);
    pupil.one.engine.begin_step(grains);
    pupil.add_grains(1, division.grains(grains), grains, 0.1);
    pupil.one.engine.finish_step();
    squares = store.gradient_squares();
    elements = counted(store, Kind::gradient);
    norm = optimizer.step(1e-3).gradient_norm;
    parameters = store.layout().parameter_count();
    const std::vector<Element> moments = counted(store, Kind::first_moment);
    for (std::size_t i = 0; i < elements.size(); ++i) elements[i].moment = moments.at(i).gradient;
    values = combine(store.layout(), store.hashes(Kind::value));
    if (!division.grid) return;
    const auto all = gather_all(test_world()->ranks(), elements);
    elements.clear();
    for (const auto& part : all) elements.insert(elements.end(), part.begin(), part.end());
  }
};

void expect_the_same(const Learned& one, const Learned& here, const std::string& what) {
  EXPECT_EQ(here.squares, one.squares) << what << ": not the bits of one rank";
  EXPECT_EQ(here.norm, std::sqrt(one.squares)) << what;
  EXPECT_EQ(here.values, one.values) << what << ": clipped otherwise";
  EXPECT_EQ(here.parameters, one.parameters) << what;
  double squares = 0;
  std::set<std::pair<std::int64_t, std::int64_t>> seen;
  const double scale = (1 - beta1) * clip / one.norm;
  for (const Element& e : here.elements) {
    seen.insert({e.parameter, e.element});
    squares += static_cast<double>(e.gradient) * e.gradient;
    EXPECT_NEAR(e.moment, scale * e.gradient, 1e-6 * std::abs(scale * e.gradient) + 1e-30) << what;
  }
  EXPECT_EQ(std::ssize(here.elements), one.parameters) << what;
  EXPECT_EQ(std::ssize(seen), one.parameters) << what << ": an element counts twice";
  EXPECT_NEAR(here.squares / squares, 1, 1e-12) << what;
}

TEST(GradientNorm, EveryElementCountsOnceOnEveryGrid) {
  std::vector<ModelConfig> configs;
  for (const bool tied : {true, false})
    for (ModelConfig config : {task.llama(), task.gpt2()}) {
      config.tied = tied;
      if (config.positions == Positions::rotary) config.kv_heads = 1, config.mlp = 37;  // shards share its keys and values
      configs.push_back(config);
    }
  const int ranks = test_world()->size();
  for (const ModelConfig& config : configs) {
    const Learned one(config, {.shards = 4});
    EXPECT_GT(one.norm, 10 * clip);
    expect_the_same(one, one, "one rank");
    for (const GridShape& shape :
         {GridShape{2, 1, 1}, {1, 2, 1}, {1, 1, 2}, {1, 3, 1}, {4, 1, 1}, {2, 2, 1}, {2, 1, 2}, {1, 2, 2}, {2, 2, 2}, {4, 1, 2}}) {
      if (shape.ranks() != ranks) continue;
      const ProcessGrid grid(*test_world(), shape);
      for (int zero = 0; zero <= 3; ++zero)
        expect_the_same(one, Learned(config, {.grid = &grid, .shards = 4, .zero = zero}),
                        fmt::format("{}, ZeRO {}, {}, {}", shape.text(), zero, config.tied ? "tied" : "untied",
                                    config.positions == Positions::rotary ? "llama" : "gpt2"));
    }
  }
}

}  // namespace
}  // namespace collimate::test
