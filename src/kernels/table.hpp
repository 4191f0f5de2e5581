#pragma once
#include "collimate/kernels/attention.hpp"
#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/embedding.hpp"
#include "collimate/kernels/head.hpp"
#include "collimate/kernels/matmul.hpp"
#include "collimate/kernels/norm.hpp"
#include "collimate/kernels/optimizer.hpp"

namespace collimate::kernels {

/// The operations of one back end, as the public headers describe them; the fronts have checked shapes, types and ranges.
struct Table {
  using In = const Tensor&;  ///< by reference: a small model's token takes some 60 operations
  void (*linear_forward)(In y, In x, In w, In bias, Write, Stream&);
  void (*linear_backward_input)(In dx, In dy, In w, Write, Stream&);
  void (*linear_backward_weight)(In dw, In dy, In x, Write, Stream&);
  void (*linear_backward_bias)(In dbias, In dy, Write, Stream&);
  void (*linear_decode)(In y, In x, In w, In bias, Stream&);

  void (*rms_norm_forward)(In y, In rstd, In x, In gain, float eps, Stream&);
  void (*rms_norm_backward)(In dx, In dgain, In dy, In x, In gain, In rstd, Write dx_as, Write dgain_as, Stream&);
  void (*layer_norm_forward)(In y, In mean, In rstd, In x, In gain, In bias, float eps, Stream&);
  void (*layer_norm_backward)(In dx, In dgain, In dbias, In dy, In x, In gain, In mean, In rstd, Write dx_as, Write parameters_as, Stream&);

  void (*rotary)(In qkv, const Ragged& positions, In table, const Heads&, bool inverse, Stream&);
  void (*attention_forward)(In out, In lse, In qkv, const Ragged& offsets, const Heads&, Stream&);
  void (*attention_backward)(In dqkv, In dout, In out, In lse, In qkv, const Ragged& offsets, In scratch, const Heads&, Stream&);
  void (*cache_write)(In keys, In values, In qkv, const Ragged& offsets, const Ragged& slots, const Heads&, Stream&);
  void (*attention_decode)(In out, In qkv, In keys, In values, const Ragged& slots, const Ragged& lengths, const Heads&, Stream&);

  void (*embedding_forward)(In y, In table, In tokens, std::int64_t first, Stream&);
  void (*embedding_backward)(In dtable, In dy, In tokens, std::int64_t first, Stream&);
  void (*embedding_add)(In y, In table, In indices, Stream&);

  void (*cast)(In to, In from, Stream&);
  void (*add)(In y, In a, In b, Stream&);
  void (*add_bias)(In y, In bias, Stream&);
  void (*copy_columns)(In y, std::int64_t y_first, In x, std::int64_t x_first, std::int64_t columns, Stream&);
  void (*add_columns)(In y, std::int64_t y_first, In x, std::int64_t x_first, std::int64_t columns, Stream&);
  void (*scale)(In y, float factor, Stream&);
  void (*gelu_forward)(In y, In x, Stream&);
  void (*gelu_backward)(In dx, In dy, In x, Stream&);
  void (*swiglu_forward)(In y, In gate_up, Stream&);
  void (*swiglu_backward)(In dgate_up, In dy, In gate_up, Stream&);
  void (*dropout)(In y, In x, double probability, const RandomKey&, In samples, In positions, std::uint32_t site, std::int64_t first, Stream&);

  void (*logit_statistics)(In statistics, In sums, In logits, In targets, std::int64_t first, float temperature, Write, Stream&);
  void (*merge_statistics)(In statistics, In other, Stream&);
  void (*finish_statistics)(In logprob, In entropy, In lse, In statistics, In targets, Stream&);
  void (*logit_gradient)(In logits, In lse, In entropy, In targets, In dlogprob, In dentropy, std::int64_t first, float temperature, Stream&);
  void (*value_forward)(In values, In hidden, In w, In b, Stream&);
  void (*value_backward)(In dhidden, In dw, In db, In dvalues, In hidden, In w, Write parameters_as, Stream&);
  void (*sample_tokens)(In tokens, In logprobs, In logits, In uniforms, const Sampling&, Stream&);

  void (*adamw)(In value, In gradient, In first_moment, In second_moment, const AdamW&, Stream&);
  void (*block_squares)(In sums, In x, Stream&);
  void (*element_hash)(In hash, In x, std::int64_t first, Stream&);
};

/// The host's own operations.
const Table& cpu_table();
/// Those of the strict device: the host's, queued on its streams.
const Table& strict_table();
/// Those of the dry device, which only add to its meter.
const Table& dry_table();

/// The operations of the device where a tensor is.
inline const Table& table_of(const Tensor& tensor) {
  switch (tensor.device().back_end()) {
    case BackEnd::cpu: return cpu_table();
    case BackEnd::strict: return strict_table();
    case BackEnd::dry: return dry_table();
  }
  fail("no operations for the device {}", tensor.device().name());
}

}  // namespace collimate::kernels
