#include <gtest/gtest.h>

#include <cmath>

#include "support/copy_task.hpp"
#include "support/numbers.hpp"

namespace collimate {
namespace {

/// The nearest number with eight bits, of two the even one, in double precision.
float nearest(float x) {
  if (x == 0) return x;
  const int scale = 7 - std::ilogb(x);
  return static_cast<float>(std::ldexp(std::nearbyint(std::ldexp(static_cast<double>(x), scale)), -scale));
}

using Numbers = std::vector<std::vector<float>>;  // of each parameter

Numbers read(const ParameterStore& store) {
  Numbers out;
  for (const Parameter& p : store.layout().parameters()) store.read(Kind::value, p.name, 0, out.emplace_back(p.shape.count()));
  return out;
}

void write(ParameterStore& store, const Numbers& numbers, bool rounded) {
  for (std::size_t p = 0; p < numbers.size(); ++p) {
    std::vector<float> values = numbers[p];
    if (rounded) std::ranges::transform(values, values.begin(), nearest);
    store.write(Kind::value, store.layout().parameters()[p].name, 0, values);
  }
}

std::uint64_t gradient(test::Pupil& pupil, std::int64_t step) {
  const ParameterStore& store = pupil.one.engine.store();
  pupil.one.engine.begin_step(3);
  pupil.add_grains(step, {0, 1, 2}, 3, 0);
  pupil.one.engine.finish_step();
  return combine(store.layout(), store.hashes(Kind::gradient));
}

// Each step once more with fp32 values alone: rounded numbers give the gradient, numbers that were never rounded are stepped by it.
TEST(Values, BFloat16ValuesAreRoundedMasters) {
  const test::CopyTask task;
  for (const auto& config : {task.llama(), task.gpt2()})
    for (const HostShares host : {HostShares{}, HostShares{0, 1}, HostShares{1, 1}, HostShares{0.3, 0.6}}) {
      test::Pupil narrow(task, config, {.shards = 2, .host = host}, 3, {}, DType::bf16), wide(task, config, {.shards = 2}, 3);
      Numbers masters = read(wide.one.engine.store());
      EXPECT_EQ(read(narrow.one.engine.store()), masters) << "masters keep all bits of a start";
      Numbers rounded = masters;
      for (std::int64_t step = 1; step <= 3; ++step) {
        write(wide.one.engine.store(), masters, true);
        EXPECT_EQ(gradient(narrow, step), gradient(wide, step)) << "step " << step;
        rounded = read(wide.one.engine.store());
        EXPECT_NE(rounded, masters) << "nothing to round";
        write(wide.one.engine.store(), masters, false);
        for (test::Pupil* pupil : {&narrow, &wide}) pupil->optimizer.step(3e-3);
        masters = read(wide.one.engine.store());
        EXPECT_EQ(read(narrow.one.engine.store()), masters) << "step " << step;
      }
    }
}

TEST(Values, FrozenBFloat16ScoresAsTheSameNumbersInF32) {
  const test::CopyTask task;
  const test::HandGrain grain = task.grain(1, 0);
  std::vector<std::vector<float>> logits;
  for (const DType type : {DType::bf16, DType::f32}) {
    test::OneEngine one(task.gpt2(), Head::policy, 2, {.rows = 256, .values = type});
    test::roughen(one);
    ParameterStore& store = one.engine.store();
    EXPECT_EQ(store.rounded() > 0, type == DType::bf16);
    write(store, read(store), true);
    logits.push_back(one.engine.logits(grain.view()));
    const std::size_t bytes = one.plan.planned_bytes(Memory::device);
    EXPECT_GT(bytes, 0u);
  }
  EXPECT_EQ(logits[0], logits[1]);
}

TEST(Values, MastersThatWereWrittenAreRoundedBeforeTheyAreUsed) {
  const test::CopyTask task;
  test::Pupil pupil(task, task.llama(), {}, 1, {}, DType::bf16);
  ParameterStore& store = pupil.one.engine.store();
  write(store, read(store), false);
  EXPECT_THROW(store.fetch(0), Error);
  store.round_values();
  EXPECT_NO_THROW(store.fetch(0));
}

}  // namespace
}  // namespace collimate
