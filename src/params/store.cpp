#include "collimate/params/store.hpp"

#include <cstring>
#include <vector>

#include "collimate/base/random.hpp"
#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/optimizer.hpp"

namespace collimate {
namespace {

std::uint32_t hash_of_name(const std::string& name) {  // FNV-1a
  std::uint32_t hash = 2166136261u;
  for (const unsigned char c : name) hash = (hash ^ c) * 16777619u;
  return hash;
}

std::uint64_t mix(std::uint64_t x) {  // the finaliser of splitmix64
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ x >> 27) * 0x94d049bb133111ebull;
  return x ^ x >> 31;
}

}  // namespace

ParameterStore::ParameterStore(std::string model, ParameterLayout layout, MemoryPlan& plan, std::int64_t most_grains, int data_ranks)
    : model_(std::move(model)), layout_(std::move(layout)), plan_(&plan) {
  const Shape all{layout_.size()};
  value_ = plan.reserve(model_ + " values", all, DType::f32);
  if (!most_grains) return;
  first_moment_ = plan.reserve(model_ + " first moment", all, DType::f32);
  second_moment_ = plan.reserve(model_ + " second moment", all, DType::f32);
  grains_ = std::make_unique<OrderedSum>(plan, model_ + " gradient", layout_.gradient_size(), most_grains, data_ranks);
}

Lease ParameterStore::fetch(int index) const {
  const int chunks = static_cast<int>(layout_.chunks().size());
  const Chunk& chunk = layout_.chunks()[index < chunks ? index : layout_.ties()[index - chunks].chunk];
  Lease lease{value().slice(chunk.offset, chunk.size), {}};
  if (open_) lease.gradient = open_.slice(layout_.gradient_offset(index), chunk.size);
  return lease;
}

void ParameterStore::begin_step(std::int64_t first_grain) {
  ensure(learns(), "model {} was not planned to learn", model_);
  grains_->begin(first_grain);
}
void ParameterStore::open_grain() { open_ = grains_->open(plan_->device().stream()); }
void ParameterStore::close_grain() {
  grains_->push(plan_->device().stream());
  open_ = {};
}

void ParameterStore::finish_step(Communicator& data, std::int64_t grains) {
  Stream& stream = plan_->device().stream();
  sum_of_step_ = grains_->finish(data, grains, stream);
  for (const auto& tie : layout_.ties()) {
    const Chunk& chunk = layout_.chunks()[tie.chunk];
    const Tensor first = sum_of_step_.slice(chunk.offset, chunk.size);
    kernels::add(first, first, sum_of_step_.slice(tie.offset, chunk.size), stream);
  }
}

void ParameterStore::initialise(std::uint64_t seed) {
  const RandomKey key(seed, Purpose::initialise);
  float* values = value().as<float>();
  for (const Parameter& parameter : layout_.parameters()) {
    const std::uint32_t name = hash_of_name(parameter.name);
    layout_.for_each_run(parameter, 0, parameter.shape.count(), [&](std::int64_t element, std::int64_t offset, std::int64_t length) {
      const double deviation = parameter.initial.deviation;
      const float constant = static_cast<float>(parameter.initial.constant);
#pragma omp parallel for
      for (std::int64_t i = 0; i < length; ++i)
        values[offset + i] = deviation > 0 ? static_cast<float>(deviation * key.normal(element + i, name)) : constant;
    });
  }
}

void ParameterStore::read(const Tensor& range, const std::string& name, std::int64_t begin, std::span<float> elements) const {
  const auto* data = range.as<float>();
  layout_.for_each_run(layout_.parameter(name), begin, elements.size(),
                       [&](std::int64_t element, std::int64_t offset, std::int64_t length) {
                         std::memcpy(elements.data() + element - begin, data + offset, length * sizeof(float));
                       });
}

void ParameterStore::write(const Tensor& range, const std::string& name, std::int64_t begin, std::span<const float> elements) const {
  auto* data = range.as<float>();
  layout_.for_each_run(layout_.parameter(name), begin, elements.size(),
                       [&](std::int64_t element, std::int64_t offset, std::int64_t length) {
                         std::memcpy(data + offset, elements.data() + element - begin, length * sizeof(float));
                       });
}

std::uint64_t hash_of(const Tensor& range, Stream& stream, std::uint64_t seed) {
  std::vector<std::uint64_t> hashes(range.count() / kernels::chunk_block);
  kernels::block_hashes(Tensor(hashes.data(), DType::u64, {static_cast<std::int64_t>(hashes.size())}, range.device()), range, stream);
  std::uint64_t hash = mix(seed + 0x9e3779b97f4a7c15ull);
  for (const std::uint64_t block : hashes) hash = mix((hash + 0x9e3779b97f4a7c15ull) ^ block);
  return hash;
}

double squares_of(const Tensor& range, Stream& stream) {
  std::vector<double> sums(range.count() / kernels::chunk_block);
  kernels::block_squares(Tensor(sums.data(), DType::f64, {static_cast<std::int64_t>(sums.size())}, range.device()), range, stream);
  double sum = 0;
  for (const double block : sums) sum += block;
  return sum;
}

}  // namespace collimate
