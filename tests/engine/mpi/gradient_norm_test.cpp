#include <cmath>
#include <map>

#include "comm/mpi_test.hpp"
#include "support/copy_task.hpp"

// Norm, clipping and counts of parameters that are replicated, tied and split (details 39 and 42): each element counts once, on every grid.
namespace collimate::test {
namespace {

constexpr std::int64_t grains = 5;
constexpr double clip = 0.01, beta1 = 0.9;

const CopyTask task{.samples_per_grain = 3};

struct Element {
  std::int64_t element;
  float gradient, moment;
};

/// What a learner knows after one step.
struct Learned {
  double squares = 0, norm = 0;
  std::uint64_t values = 0;
  std::int64_t parameters = 0;
  std::map<std::string, std::vector<Element>> elements;  // of all ranks, each that counts them

  Learned(const ModelConfig& config, const Division& division) {
    Pupil pupil(task, config, division, grains);
    ParameterStore& store = pupil.one.engine.store();
    Optimizer optimizer(store, {.beta1 = beta1, .epsilon = 1e-8}, clip);
    pupil.one.engine.begin_step(grains);
    pupil.add_grains(1, division.grains(grains), grains, 0.1);
    pupil.one.engine.finish_step();
    squares = store.gradient_squares();
    std::map<std::string, std::vector<float>> gradient = counted(store, Kind::gradient, nullptr);
    norm = optimizer.step(1e-3, pupil.one.device->stream()).gradient_norm;
    parameters = store.layout().parameter_count();
    std::map<std::string, std::vector<std::int64_t>> places;
    const auto moment = counted(store, Kind::first_moment, &places);
    for (const auto& [name, at] : places)
      for (std::size_t i = 0; i < at.size(); ++i) elements[name].push_back({at[i], gradient[name][i], moment.at(name)[i]});
    values = combine(store.layout(), store.hashes(Kind::value));
    if (!division.grid) return;
    for (const Parameter& p : store.layout().parameters()) {
      std::vector<Element> all;
      for (const auto& part : gather_all(test_world()->ranks(), elements[p.name])) all.insert(all.end(), part.begin(), part.end());
      elements[p.name] = std::move(all);
    }
  }

 private:
  static std::map<std::string, std::vector<float>> counted(const ParameterStore& store, Kind kind,
                                                           std::map<std::string, std::vector<std::int64_t>>* places) {
    std::map<std::string, std::vector<float>> out;
    for (const Parameter& p : store.layout().parameters())
      store.for_each_run(kind, p, 0, p.shape.count(), Extent::counted, [&](std::int64_t element, const float* data, std::int64_t n) {
        out[p.name].insert(out[p.name].end(), data, data + n);
        for (std::int64_t i = 0; places && i < n; ++i) (*places)[p.name].push_back(element + i);
      });
    return out;
  }
};

void expect_the_same(const Learned& one, const Learned& here, const std::string& what) {
  EXPECT_EQ(here.squares, one.squares) << what << ": not the bits of one rank";
  EXPECT_EQ(here.norm, std::sqrt(one.squares)) << what;
  EXPECT_EQ(here.values, one.values) << what << ": clipped otherwise";
  EXPECT_EQ(here.parameters, one.parameters) << what;
  double squares = 0;
  std::int64_t count = 0;
  const double scale = (1 - beta1) * clip / one.norm;
  for (const auto& [name, elements] : here.elements) {
    std::vector<int> seen;
    for (const Element& e : elements) {
      seen.resize(std::max<std::size_t>(seen.size(), e.element + 1));
      ++seen[e.element];
      squares += static_cast<double>(e.gradient) * e.gradient;
      EXPECT_NEAR(e.moment, scale * e.gradient, 1e-6 * std::abs(scale * e.gradient) + 1e-30) << what << ", " << name;
    }
    EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; })) << what << ", " << name << ": an element counts twice, or never";
    count += static_cast<std::int64_t>(elements.size());
  }
  EXPECT_EQ(count, one.parameters) << what;
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
