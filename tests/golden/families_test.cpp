#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "collimate/model/hugging_face.hpp"
#include "golden/families_golden.hpp"
#include "support/small_model.hpp"

// Every family against transformers: models whose numbers a formula gives (families.py), so that no file is needed.
namespace collimate::test {
namespace {

/// A number in [-0.5, 0.5) for each element of each tensor, counted in the order of their names.
double formula(std::uint64_t tensor, std::uint64_t element) {
  const auto hash = static_cast<std::uint32_t>((element + 1) * 2654435761u + (tensor + 1) * 40503 * 65537);
  return hash * 0x1p-32 - 0.5;
}

void fill(ParameterStore& store, const std::vector<HuggingFaceTensor>& tensors) {
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const bool gain = tensors[t].parts[0].ends_with(".gain");
    std::vector<float> stored(tensors[t].shape.count()), ours(tensors[t].part_shape().count());
    for (std::size_t i = 0; i < stored.size(); ++i) stored[i] = static_cast<float>(gain ? 1 + formula(t, i) : 2 * formula(t, i));
    for (std::size_t part = 0; part < tensors[t].parts.size(); ++part) {
      unpack(tensors[t], static_cast<int>(part), stored, ours);
      store.write(Kind::value, tensors[t].parts[part], 0, ours);
    }
  }
}

std::vector<float> numbers_of(OneEngine& one, Head head, const HandGrain& grain) {
  if (head == Head::policy) return one.engine.logits(grain.view());
  std::vector<float> values(grain.tokens.size());
  one.engine.values(grain.view(), values);
  return values;
}

TEST(Families, LogitsAndScoresAreThoseOfTransformers) {
  std::vector<int> ids;
  for (int i = 0; i < 40; ++i) ids.push_back((7 * i + i * i / 5 + 3) % 23);
  const HandGrain grain({ids});
  for (const FamilyGolden& golden : family_golden) {
    SCOPED_TRACE(golden.name);
    const Head head = std::string(golden.name).ends_with("reward") ? Head::value : Head::policy;
    const ModelConfig config = config_from_hugging_face(golden.config, "config.json");
    EXPECT_EQ(config_from_hugging_face(config_to_hugging_face(config, {}, {}, head), "again"), config);
    for (const int shards : {1, 2, 4}) {
      OneEngine one(config, head, shards, {.rows = 64});
      fill(one.engine.store(), hugging_face_tensors(config, head));
      const std::vector<float> numbers = numbers_of(one, head, grain);
      const std::size_t columns = head == Head::policy ? 23 : 1;
      ASSERT_EQ(golden.numbers.size(), 3 * columns);
      for (std::size_t r = 0; r < 3; ++r) {
        const std::span row = std::span(numbers).subspan(std::array{0, 17, 39}[r] * columns, columns);
        double sum = 0;
        for (const float x : row) sum += std::exp(static_cast<double>(x));
        const double shift = head == Head::policy ? std::log(sum) : 0;
        for (std::size_t v = 0; v < columns; ++v)
          EXPECT_NEAR(row[v] - shift, golden.numbers[r * columns + v], 1e-4) << shards << " shards, row " << r;
      }
    }
  }
}

}  // namespace
}  // namespace collimate::test
