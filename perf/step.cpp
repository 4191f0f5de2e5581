// Whole training steps and generation beside the limits of the machine, in one run. Usage:
//   collimate_perf_step limits | train MODEL [rounds] | generate MODEL BATCH [rounds]      MODEL: gpt2 (124 M) or small (0.9 M)
// Prints "name value" lines; perf/run collects them over several calls and sets them beside a peer's.
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "collimate/base/threads.hpp"
#include "collimate/base/timer.hpp"
#include "collimate/engine/engine.hpp"
#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/matmul.hpp"
#include "collimate/kernels/rows.hpp"
#include "collimate/optim/optimizer.hpp"
#include "kernels/cpu/lanes.hpp"
#include "kernels/cpu/parallel.hpp"
#include "workload.hpp"

using namespace collimate;
using namespace collimate::perf;
using Index = std::int64_t;

namespace {

constexpr Index prompt_tokens = 32, new_tokens = 96;

double least_of(int calls, const std::function<void()>& call) {
  double least = 1e300;
  for (call(); calls > 0; --calls) least = std::min(least, seconds_of(call));
  return least;
}

void print(const std::string& name, double value) { fmt::print("{} {:.6g}\n", name, value); }

double fma_rate() {
  constexpr int chains = kernels::cpu::one_register ? 16 : 6;  // they hide the latency of two units, and fit into the registers
  constexpr Index turns = 2000000;
  const double seconds = least_of(3, [] {
#pragma omp parallel
    {
      kernels::cpu::Lanes x[chains];
      const auto a = kernels::cpu::in_register(kernels::cpu::splat(0.999f)), b = kernels::cpu::in_register(kernels::cpu::splat(0.001f));
      for (int i = 0; i < chains; ++i) x[i] = kernels::cpu::splat(static_cast<float>(i));
      for (Index turn = 0; turn < turns; ++turn)
#pragma GCC unroll 16
        for (int i = 0; i < chains; ++i) x[i] = kernels::cpu::fma(x[i], a, b);
      for (int i = 1; i < chains; ++i) x[0] += x[i];
      asm volatile("" : : "x"(x[0].part[0]), "x"(x[0].part[kernels::cpu::parts - 1]));
    }
  });
  return 2.0 * kernels::cpu::lanes * chains * static_cast<double>(turns) * omp_get_max_threads() / seconds * 1e-9;
}

/// GB/s at which the threads together read an array much larger than the caches, in the pages that weights get and shared as products are.
double read_rate(const Buffer& buffer) {
  constexpr Index tile = 1 << 18, streams = 8;
  const auto* array = static_cast<const float*>(buffer.data());
  const auto tiles = static_cast<Index>(buffer.bytes() / sizeof(float)) / tile;
  const auto pass = [&] {
    kernels::cpu::parallel_tiles(tiles, true, [&](Index t) {
      kernels::cpu::Lanes sums[streams] = {};
      for (Index i = t * tile; i < (t + 1) * tile; i += streams * kernels::cpu::lanes)
#pragma GCC unroll 8
        for (Index j = 0; j < streams; ++j) sums[j] += kernels::cpu::load(array + i + kernels::cpu::lanes * j);
      for (Index j = 1; j < streams; ++j) sums[0] += sums[j];
      asm volatile("" : : "x"(sums[0].part[0]), "x"(sums[0].part[kernels::cpu::parts - 1]));
    });
  };
  std::vector<double> passes;  // their median, as of the rates that are set beside it
  for (int i = 0; i < 5; ++i) passes.push_back(seconds_of(pass));
  return 4.0 * static_cast<double>(tiles * tile) / median(passes) * 1e-9;
}

double triad_rate() {
  constexpr Index count = 32 << 20;
  const auto device = make_cpu_device();
  std::vector<float> memory(3 * count, 1.0f);
  const auto part = [&](int i) { return Tensor(memory.data() + i * count, DType::f32, {count}, *device); };
  return 12.0 * count / least_of(3, [&] { kernels::add(part(0), part(1), part(2), device->stream()); }) * 1e-9;
}

/// One engine on one rank, with random weights.
struct Model {
  std::unique_ptr<Device> device = make_cpu_device();
  MemoryPlan plan{*device};
  Workspace workspace{plan};
  std::unique_ptr<Communicator> alone = make_single_communicator();
  Engine engine;
  Model(const ModelConfig& config, const EngineUse& use) : engine("model", config, Head::policy, Division{}, use, workspace) {
    workspace.reserve();
    plan.commit();
    engine.prepare();
    engine.store().initialise(1);
  }
};

/// The matrix products of one step, forward and backward once each, in the row blocks that the engine uses.
class Products {
 public:
  explicit Products(const Workload& w) : config_(w.config), rows_(w.batch * w.length) {
    const Index c = config_.width, widest = std::max(3 * c, config_.mlp);
    const Index weights = c * std::max({3 * c, config_.mlp, config_.vocabulary});
    wide_.assign(std::max(rows_ * widest, kernels::row_block * config_.vocabulary), 0.5f);
    narrow_.assign(rows_ * widest, 0.5f);
    dx_.assign(rows_ * widest, 0.0f);
    weight_.assign(weights, 0.01f);
    gradient_.assign(weights, 0.0f);
  }
  void run() {
    const Index c = config_.width;
    for (Index layer = 0; layer < config_.layers; ++layer) {
      linear(rows_, 3 * c, c, kernels::Write::replace);
      linear(rows_, c, c, kernels::Write::replace);
      linear(rows_, config_.mlp, c, kernels::Write::replace);
      linear(rows_, c, config_.mlp, kernels::Write::replace);
    }
    for (Index row = 0; row < rows_; row += kernels::row_block)
      linear(std::min(kernels::row_block, rows_ - row), config_.vocabulary, c, row ? kernels::Write::add : kernels::Write::replace);
  }
  double flop() const {
    const double c = static_cast<double>(config_.width), m = static_cast<double>(config_.mlp);
    return 6.0 * static_cast<double>(rows_) *
           (static_cast<double>(config_.layers) * (4 * c * c + 2 * c * m) + c * static_cast<double>(config_.vocabulary));
  }

 private:
  void linear(Index rows, Index n, Index k, kernels::Write write) {
    const Tensor y(wide_.data(), DType::f32, {rows, n}, *device_), x(narrow_.data(), DType::f32, {rows, k}, *device_),
                 dx(dx_.data(), DType::f32, {rows, k}, *device_);
    const Tensor w(weight_.data(), DType::f32, {n, k}, *device_), dw(gradient_.data(), DType::f32, {n, k}, *device_);
    kernels::linear_forward(y, x, w, {}, kernels::Write::replace, device_->stream());
    kernels::linear_backward_weight(dw, y, x, write, device_->stream());
    kernels::linear_backward_input(dx, y, w, kernels::Write::replace, device_->stream());
  }
  ModelConfig config_;
  Index rows_;
  std::unique_ptr<Device> device_ = make_cpu_device();
  std::vector<float> wide_, narrow_, dx_, weight_, gradient_;
};

void train(const std::string& name, Index rounds) {
  const Workload w = workload(name);
  if (rounds == 0) rounds = w.rounds;
  const Index rows = w.batch * w.length;
  Model model(w.config, {.rows = rows, .most_grains = 1});
  Stream& stream = model.device->stream();
  Optimizer optimizer(model.engine.store(), {.decay = 0.01}, 1.0);
  const Tokens tokens(w, 0, w.batch);
  const float weight = -1.0f / static_cast<float>(rows);
  double loss = 0, gradient = 0, update = 0;
  const auto step = [&] {
    const Stopwatch watch;
    loss = 0;
    model.engine.begin_step(1);
    model.engine.forward_backward(tokens.view(), 1.0f, {}, [&](Index, auto logprob, auto, auto dlogprob, auto) {
      for (const float l : logprob) loss += l * weight;
      std::fill(dlogprob.begin(), dlogprob.end(), weight);
    });
    model.engine.finish_step();
    gradient = watch.seconds();
    update = seconds_of([&] { optimizer.step(3e-4); });
  };
  Products products(w);
  step();
  products.run();
  std::vector<double> steps, updates, alone, ratios;
  for (Index round = 0; round < rounds; ++round) {  // in turn, so that both meet the same machine
    step();
    alone.push_back(seconds_of([&] { products.run(); }));
    steps.push_back(gradient + update);
    updates.push_back(update);
    ratios.push_back(steps.back() / alone.back());
  }
  const std::string what = "train." + name;
  const double bytes = 8.0 * 4 * static_cast<double>(model.engine.store().layout().size());  // the norm reads one array, AdamW moves seven
  const double triad = name == "gpt2" ? triad_rate() : 0;
  print(what + ".tokens_per_second", static_cast<double>(rows) / median(steps));
  print(what + ".step_ms", 1e3 * median(steps));
  print(what + ".products_ms", 1e3 * median(alone));
  print(what + ".products_gflops", 1e-9 * products.flop() / median(alone));
  print(what + ".step_over_products", median(ratios));
  print(what + ".optimizer_ms", 1e3 * median(updates));
  if (triad > 0) print(what + ".optimizer_share_of_streaming", bytes / median(updates) * 1e-9 / triad);
  print(what + ".loss", loss);
}

void generate(const std::string& name, Index batch, Index rounds) {
  const Workload w = workload(name);
  if (rounds == 0) rounds = w.rounds;
  Model model(w.config, {.rows = std::max<Index>(256, kernels::padded_rows(batch * prompt_tokens)), .slots = batch, .capacity = prompt_tokens + new_tokens});
  const std::vector<Prompt> prompts = some_prompts(w, batch, prompt_tokens);
  GenerateOptions how;
  const auto run = [&](Index tokens) {
    how.max_new = tokens;
    return seconds_of([&] { model.engine.generate(prompts, how); });
  };
  const bool large = w.config.width > 512;  // larger than the caches
  const Index elements = model.engine.store().layout().parameter_count() - w.config.context * w.config.width;
  const Buffer array(*model.device, large ? elements * sizeof(float) : 0, Memory::device);
  run(new_tokens);
  std::vector<double> whole, shares, rates;
  for (Index round = 0; round < rounds; ++round) {
    const double before = large ? read_rate(array) : 0;
    const double first = run(1), all = run(new_tokens), per_token = (all - first) / (new_tokens - 1);
    whole.push_back(static_cast<double>(batch * new_tokens) / all);
    rates.push_back(static_cast<double>(batch) / per_token);
    // A step reads every matrix once: the positions are looked up, the embedding counts once, as the head.
    if (large) shares.push_back(4e-9 * static_cast<double>(elements) / (0.5 * (before + read_rate(array))) / per_token);
  }
  const std::string what = fmt::format("generate.{}.{}", name, batch);
  print(what + ".tokens_per_second", median(whole));
  print(what + ".decode_tokens_per_second", median(rates));
  if (large) print(what + ".share_of_weight_streaming", median(shares));
}

void limits() {
  print("limits.threads", omp_get_max_threads());
  print("limits.fma_gflops", fma_rate());
  print("limits.stream_gbs", triad_rate());
  const auto device = make_cpu_device();
  print("limits.read_gbs", read_rate(Buffer(*device, std::size_t{128} << 20, Memory::device)));
}

int usage() {
  fmt::print(stderr, "usage: collimate_perf_step limits | train gpt2|small [rounds] | generate gpt2|small BATCH [rounds]\n");
  return 2;
}

}  // namespace

int main(int count, char** arguments) {
  spin_briefly(arguments);
  const kernels::cpu::FlushSubnormals flush;
  const auto number = [&](int i) { return i < count ? std::atoll(arguments[i]) : 0; };
  const std::string what = count > 1 ? arguments[1] : "";
  try {
    if (what == "limits")
      limits();
    else if (what == "train" && count > 2)
      train(arguments[2], number(3));
    else if (what == "generate" && count > 3)
      generate(arguments[2], std::max<Index>(1, number(3)), number(4));
    else
      return usage();
  } catch (const Error& error) {
    fmt::print(stderr, "collimate_perf_step: {}\n", error.what());
    return 1;
  }
}
