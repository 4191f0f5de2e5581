#include <functional>
#include <tuple>

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
/// Checked before: what is queued reads the device's half alone, and the host's may be gone.
Ragged reached(const Ragged& index, const Stream& stream) { return {{}, reached(index.device, stream)}; }
std::reference_wrapper<Stream> reached(Stream& own, const Stream&) { return own; }
template <class Other>
Other reached(const Other& argument, const Stream&) {
  return argument;
}

template <auto Operation>
struct Queued;
template <class... Arguments, void (*Table::*Operation)(Arguments...)>
struct Queued<Operation> {
  static void run(Arguments... arguments) {
    Stream& stream = std::get<sizeof...(Arguments) - 1>(std::forward_as_tuple(arguments...));
    stream.queue([kept = std::tuple(reached(arguments, stream)...)] {
      std::apply([](const auto&... each) { (cpu_table().*Operation)(each...); }, kept);
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
    .sample_tokens = Queued<&Table::sample_tokens>::run,
    .adamw = Queued<&Table::adamw>::run,
    .block_squares = Queued<&Table::block_squares>::run,
    .element_hash = Queued<&Table::element_hash>::run,
};

}  // namespace

const Table& strict_table() { return table; }

}  // namespace collimate::kernels
