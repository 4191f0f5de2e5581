#include <algorithm>
#include <functional>
#include <span>
#include <tuple>
#include <vector>

#include "collimate/device/strict_device.hpp"
#include "kernels/table.hpp"

namespace collimate::kernels {
namespace {

/// An argument as the queued operation sees it: tensors by the address under which the device's own work reaches them.
Tensor reached(const Tensor& tensor, const Stream& stream) {
  if (!tensor) return tensor;
  const Device& device = stream.device();
  ensure(&tensor.device() == &device, "a kernel of the {} was given a tensor of the {}", device.name(), tensor.device().name());
  return {device.reach(tensor.data()), tensor.dtype(), tensor.shape(), tensor.device()};
}
/// What is queued reads the device's half, which must then be what the host's half was.
struct KeptRagged {
  std::vector<std::int32_t> host;
  Ragged index;
  operator const Ragged&() const { return index; }  // NOLINT: it is one
};
KeptRagged reached(const Ragged& index, const Stream& stream) {
  return {{index.host.begin(), index.host.end()}, {{}, reached(index.device, stream)}};
}
std::reference_wrapper<Stream> reached(Stream& own, const Stream&) { return own; }
template <class Other>
Other reached(const Other& argument, const Stream&) {
  return argument;
}

/// Numbers of a wrong index would lead a kernel out of its memory.
void check_written(const Tensor& tensor) {
  if (!tensor || tensor.dtype() != DType::i32) return;
  const std::span<const std::int32_t> index(tensor.as<std::int32_t>(), static_cast<std::size_t>(tensor.count()));
  if (std::ranges::find(index, static_cast<std::int32_t>(strict_poison)) != index.end())
    fail("a kernel of the {} reads an index that nobody has written: its copy is missing, or comes too late", tensor.device().name());
}
void check_written(const KeptRagged& kept) {
  const Tensor& device = kept.index.device;
  if (!kept.host.empty() && !std::equal(kept.host.begin(), kept.host.end(), device.as<std::int32_t>()))
    fail("a kernel of the {} reads an index that is not the host's: its copy is missing, comes too late, or what it was made of was used again too early",
         device.device().name());
}
template <class Other>
void check_written(const Other&) {}

template <auto Operation, bool writes_index = false>
struct Queued;
template <class... Arguments, void (*Table::*Operation)(Arguments...), bool writes_index>
struct Queued<Operation, writes_index> {
  static void run(Arguments... arguments) {
    Stream& stream = std::get<sizeof...(Arguments) - 1>(std::forward_as_tuple(arguments...));
    stream.queue([kept = std::tuple(reached(arguments, stream)...)] {
      std::apply(
          [](const auto&... each) {
            if constexpr (!writes_index) (check_written(each), ...);
            (cpu_table().*Operation)(each...);
          },
          kept);
    });
  }
};

constexpr Table table = {
    .linear_forward = Queued<&Table::linear_forward>::run,
    .linear_backward_input = Queued<&Table::linear_backward_input>::run,
    .linear_backward_weight = Queued<&Table::linear_backward_weight>::run,
    .linear_backward_bias = Queued<&Table::linear_backward_bias>::run,
    .linear_decode = Queued<&Table::linear_decode>::run,
    .rms_norm_forward = Queued<&Table::rms_norm_forward>::run,
    .rms_norm_backward = Queued<&Table::rms_norm_backward>::run,
    .layer_norm_forward = Queued<&Table::layer_norm_forward>::run,
    .layer_norm_backward = Queued<&Table::layer_norm_backward>::run,
    .rotary = Queued<&Table::rotary>::run,
    .attention_forward = Queued<&Table::attention_forward>::run,
    .attention_backward = Queued<&Table::attention_backward>::run,
    .cache_write = Queued<&Table::cache_write>::run,
    .attention_decode = Queued<&Table::attention_decode>::run,
    .embedding_forward = Queued<&Table::embedding_forward>::run,
    .embedding_backward = Queued<&Table::embedding_backward>::run,
    .embedding_add = Queued<&Table::embedding_add>::run,
    .cast = Queued<&Table::cast>::run,
    .add = Queued<&Table::add>::run,
    .add_bias = Queued<&Table::add_bias>::run,
    .copy_columns = Queued<&Table::copy_columns>::run,
    .add_columns = Queued<&Table::add_columns>::run,
    .scale = Queued<&Table::scale>::run,
    .gelu_forward = Queued<&Table::gelu_forward>::run,
    .gelu_backward = Queued<&Table::gelu_backward>::run,
    .swiglu_forward = Queued<&Table::swiglu_forward>::run,
    .swiglu_backward = Queued<&Table::swiglu_backward>::run,
    .dropout = Queued<&Table::dropout>::run,
    .logit_statistics = Queued<&Table::logit_statistics>::run,
    .merge_statistics = Queued<&Table::merge_statistics>::run,
    .finish_statistics = Queued<&Table::finish_statistics>::run,
    .logit_gradient = Queued<&Table::logit_gradient>::run,
    .value_forward = Queued<&Table::value_forward>::run,
    .value_backward = Queued<&Table::value_backward>::run,
    .sample_tokens = Queued<&Table::sample_tokens, true>::run,
    .adamw = Queued<&Table::adamw>::run,
    .block_squares = Queued<&Table::block_squares>::run,
    .element_hash = Queued<&Table::element_hash>::run,
};

}  // namespace

const Table& strict_table() { return table; }

}  // namespace collimate::kernels
