// What the process grid costs: bytes sent beside their formulas, sums in order beside the library's, ZeRO stages, memory. Usage, under mpirun:
//   collimate_perf_grids traffic | modes | zero | memory  MODEL [rounds]      MODEL: gpt2 (124 M) or small (0.9 M)
// perf/grids runs all of them. Ends with 1 where bytes differ from their formula, or memory from its plan.
#include <fmt/format.h>

#include <cstdlib>

#include "collimate/base/threads.hpp"
#include "collimate/comm/rank_cores.hpp"
#include "collimate/optim/optimizer.hpp"
#include "kernels/cpu/parallel.hpp"
#include "support/traffic.hpp"
#include "workload.hpp"

using namespace collimate;
using namespace collimate::perf;
using collimate::test::sent_by;
using collimate::test::Traffic;
using collimate::test::TrafficFormulas;
using Index = std::int64_t;

namespace {

constexpr Index grains = 8, prompts_per_rank = 8, prompt_tokens = 32, new_tokens = 32;

struct Setting {
  GridShape shape;
  int zero = 0, shards = 1;
  bool ordered = true;
  Recompute recompute = Recompute::none;
  bool generates = false;
};

/// A model on a grid of all ranks, and its steps of `grains` grains.
struct Pupil {
  Workload work;
  World* world;
  ProcessGrid grid;
  Division division;
  RecomputePlan recompute;
  std::unique_ptr<Device> device = make_cpu_device();
  MemoryPlan plan{*device};
  Workspace workspace{plan};
  Engine engine;
  std::unique_ptr<Optimizer> optimizer;
  std::vector<Tokens> tokens;
  std::vector<Grain> mine;

  Pupil(World& world, const Workload& w, const Setting& s)
      : work(w),
        world(&world),
        grid(world, s.shape),
        division{&grid, s.shards, s.zero, s.ordered},
        recompute{s.recompute, 1},
        engine("model", w.config, Head::policy, division,
               {.rows = rows(), .most_grains = grains, .slots = s.generates ? prompts_per_rank : 0, .capacity = prompt_tokens + new_tokens, .recompute = recompute},
               workspace) {
    workspace.reserve();
    plan.commit();
  }
  Index samples() const { return std::max<Index>(1, work.batch / grains); }
  Index rows() const { return samples() * work.length; }
  void start() {
    engine.prepare();
    engine.store().initialise(1);
    optimizer = std::make_unique<Optimizer>(engine.store(), kernels::AdamW{.decay = 0.01}, 1.0);
    const std::vector<Index> numbers = division.grains(grains);
    for (const Index g : numbers) tokens.emplace_back(work, g * samples(), g < 0 ? 0 : samples());
    for (std::size_t i = 0; i < numbers.size(); ++i) mine.push_back(numbers[i] < 0 ? Grain{} : tokens[i].view());
  }
  /// Seconds until all ranks are through.
  double together(const std::function<void()>& call) {
    world->ranks().barrier();
    const Stopwatch watch;
    call();
    world->ranks().barrier();
    return watch.seconds();
  }
  double step() {
    return together([&] {
      engine.begin_step(grains);
      engine.forward_backward(mine, 1.0f, {}, [&](std::size_t, Index, auto, auto, auto dlogprob, auto) {
        std::fill(dlogprob.begin(), dlogprob.end(), -1.0f / static_cast<float>(grains * rows()));
      });
      engine.finish_step();
      optimizer->step(1e-4);
    });
  }
};

/// The largest value over the ranks.
template <class T>
T most(World& world, T mine) {
  const std::vector<T> all = gather_all(world.ranks(), mine);
  return *std::max_element(all.begin(), all.end());
}

template <class... Values>
void print(const World& world, fmt::format_string<Values...> format, Values&&... values) {
  if (world.rank() == 0) fmt::print(format, std::forward<Values>(values)...);
}

/// The grids of all ranks along one axis or two, tensor a power of two.
std::vector<GridShape> shapes(int ranks, Index layers) {
  std::vector<GridShape> out;
  for (int tensor = 1; tensor <= std::min(4, ranks); tensor *= 2)
    for (int pipeline = 1; pipeline <= std::min<Index>(ranks, layers); ++pipeline)
      if (ranks % (tensor * pipeline) == 0) out.push_back({tensor, ranks / tensor / pipeline, pipeline});
  return out;
}

bool traffic(World& world, const Workload& w) {
  print(world, "| grid (tensor x data x pipeline) | ZeRO | recompute | k | tensor, MB | data, MB | pipeline, MB | data / (Ψ (d-1)/d) | 2, k+1 or 3k | formula |\n");
  print(world, "|---|---|---|---|---|---|---|---|---|---|\n");
  bool all_equal = true;
  for (const GridShape& shape : shapes(world.size(), w.config.layers))
    for (int zero = 0; zero < (shape.data > 1 ? 4 : 1); ++zero)
      for (const Recompute how : {Recompute::none, Recompute::full}) {
        if (how == Recompute::full && (shape.tensor == 1 || zero > 0)) continue;
        Pupil pupil(world, w, {.shape = shape, .zero = zero, .shards = shape.tensor, .recompute = how});
        pupil.start();
        const Traffic before = sent_by(pupil.grid);
        pupil.step();
        const Traffic sent = sent_by(pupil.grid) - before;
        const TrafficFormulas formulas(pupil.engine, pupil.recompute);
        const bool equal = most(world, sent == formulas.of_step(pupil.mine, grains) ? 0 : 1) == 0;
        all_equal &= equal;
        const Index k = grains / shape.data;
        const double whole = static_cast<double>(formulas.bytes()) * (shape.data - 1) / shape.data;
        const auto megabytes = [&](Index bytes) { return 1e-6 * static_cast<double>(most(world, bytes)); };
        const double tensor = megabytes(sent.tensor), data = megabytes(sent.data), pipeline = megabytes(sent.pipeline);
        const double factor = most(world, whole > 0 ? static_cast<double>(sent.data) / whole : 0);
        print(world, "| {} x {} x {} | {} | {} | {} | {:.3f} | {:.3f} | {:.3f} | {:.3f} | {} | {} |\n", shape.tensor, shape.data, shape.pipeline, zero,
              how == Recompute::full ? "full" : "none", k, tensor, data, pipeline, factor, shape.data == 1 ? 0 : zero < 2 ? 2 : zero == 2 ? k + 1 : 3 * k,
              equal ? "equal" : "DIFFERS");
      }
  return all_equal;
}

/// Sums in order against sums as they come, step by step in turn. On one rank: 4 virtual shards against one.
bool modes(World& world, const Workload& w, Index rounds) {
  const int n = world.size();
  print(world, "| ranks | grid | exact, ms a step | fast, ms a step | ratio: median (quartiles) |\n|---|---|---|---|---|\n");
  for (const GridShape& shape : {GridShape{1, n, 1}, GridShape{n, 1, 1}}) {
    Pupil exact(world, w, {.shape = shape, .shards = n == 1 ? 4 : shape.tensor});
    Pupil fast(world, w, {.shape = shape, .shards = shape.tensor, .ordered = false});
    for (Pupil* pupil : {&exact, &fast}) {
      pupil->start();
      pupil->step();
    }
    std::vector<double> a, b, ratios;
    for (Index round = 0; round < rounds; ++round) {
      for (int turn = 0; turn < 2; ++turn) ((turn + round) % 2 ? b : a).push_back(((turn + round) % 2 ? fast : exact).step());
      ratios.push_back(a.back() / b.back());
    }
    std::sort(ratios.begin(), ratios.end());
    const auto quarter = ratios.size() / 4;
    print(world, "| {} | {} | {:.1f} | {:.1f} | {:.3f} ({:.3f} to {:.3f}) |\n", n, shape.text(), 1e3 * median(a), 1e3 * median(b), median(ratios),
          ratios[quarter], ratios[ratios.size() - 1 - quarter]);
    if (n == 1) break;
  }
  return true;
}

/// Steps and rollouts of the ZeRO stages in turn (of a large model 0 and 3). Beside ZeRO 3: the wait for gathers in a step, and what they take where nothing hides them.
bool zero(World& world, const Workload& w, Index rounds) {
  const std::vector<int> stages = w.config.width > 512 ? std::vector{0, 3} : std::vector{0, 1, 2, 3};
  std::unique_ptr<Pupil> pupils[4];
  for (const int zero : stages) {
    pupils[zero] = std::make_unique<Pupil>(world, w, Setting{.shape = {1, world.size(), 1}, .zero = zero, .generates = true});
    pupils[zero]->start();
  }
  const std::vector<Prompt> prompts = some_prompts(w, prompts_per_rank, prompt_tokens);
  GenerateOptions how;
  how.max_new = new_tokens;
  std::vector<double> steps[4], rollouts[4], gathers, waits;
  Pupil& sharded = *pupils[3];
  const Communicator& data = sharded.grid.along(Axis::data);
  for (Index round = -1; round < rounds; ++round)
    for (const int zero : stages) {
      const double waited = data.transfers_waited();
      const double step = pupils[zero]->step(), wait = data.transfers_waited() - waited;
      const double rollout = pupils[zero]->together([&] { pupils[zero]->engine.generate(prompts, how); });
      if (round < 0) continue;
      steps[zero].push_back(step);
      rollouts[zero].push_back(rollout);
      if (zero == 3) waits.push_back(most(world, wait));
    }
  for (Index round = 0; round < rounds; ++round) {
    gathers.push_back(sharded.together([&] { sharded.engine.store().hold_all(); }));
    sharded.engine.store().release_all();
  }
  const TrafficFormulas formulas(sharded.engine, {});
  const double alone = median(gathers) * static_cast<double>(formulas.gathered_bytes(sharded.mine.size())) /
                       static_cast<double>(formulas.bytes());
  print(world, "| ranks | ZeRO | ms a step | of ZeRO 0 | ms a rollout | of ZeRO 0 |\n|---|---|---|---|---|---|\n");
  for (const int zero : stages)
    print(world, "| {} | {} | {:.1f} | {:.2f} | {:.1f} | {:.2f} |\n", world.size(), zero, 1e3 * median(steps[zero]),
          median(steps[zero]) / median(steps[0]), 1e3 * median(rollouts[zero]), median(rollouts[zero]) / median(rollouts[0]));
  const double wait = median(waits);
  print(world, "\ngathers of a ZeRO 3 step: {:.1f} ms where nothing is computed meanwhile, {:.1f} ms of waiting in a step, so {:.0f} % hidden\n",
        1e3 * alone, 1e3 * wait, 100 * std::max(0.0, 1 - wait / alone));
  return true;
}

bool memory(World& world, const Workload& w) {
  print(world, "| ranks | ZeRO | recompute none, MiB | selective | full |\n|---|---|---|---|---|\n");
  bool as_planned = true;
  for (int zero = 0; zero < 4; ++zero) {
    std::string line;
    for (const Recompute how : {Recompute::none, Recompute::selective, Recompute::full}) {
      const Pupil pupil(world, w, {.shape = {1, world.size(), 1}, .zero = zero, .recompute = how});
      std::size_t planned = 0;
      for (const Memory memory : {Memory::device, Memory::host, Memory::pinned}) planned += pupil.plan.planned_bytes(memory);
      as_planned &= planned == pupil.plan.allocated_bytes();
      line += fmt::format(" {:.1f} |", static_cast<double>(most(world, planned)) / 1048576.0);
    }
    print(world, "| {} | {} |{}\n", world.size(), zero, line);
  }
  return most(world, as_planned ? 0 : 1) == 0;
}

}  // namespace

int main(int count, char** arguments) {
  spin_briefly(arguments);
  World world;
  share_cores(world);
  const kernels::cpu::FlushSubnormals flush;
  return run_program(world, [&] {
    const std::string what = count > 2 ? arguments[1] : "";
    const Workload w = workload(count > 2 ? arguments[2] : "small");
    const Index rounds = count > 3 ? std::max(1, std::atoi(arguments[3])) : w.rounds;
    bool right = true;
    if (what == "traffic") right = traffic(world, w);
    else if (what == "modes") right = modes(world, w, rounds);
    else if (what == "zero") right = zero(world, w, rounds);
    else if (what == "memory") right = memory(world, w);
    else fail_with(ExitCode::input_error, "usage: collimate_perf_grids traffic|modes|zero|memory gpt2|small [rounds]");
    if (!right) print(world, "NOT as planned: see above\n");
    return right ? 0 : 1;
  });
}
