#include "collimate/kernels/embedding.hpp"

#include "kernels/check.hpp"
#include "kernels/table.hpp"

namespace collimate::kernels {
namespace {

void check_all(std::string_view name, const Tensor& rows, const Tensor& table, const Tensor& tokens, Types types) {
  check_rank(name, "table", table, 2, types);
  check_rank(name, "tokens", tokens, 1, DType::i32);
  check(name, "the rows", rows, {tokens[0], table[1]});
}

}  // namespace

void embedding_forward(Tensor y, Tensor table, Tensor tokens, std::int64_t first, Stream& stream) {
  check_all("embedding_forward", y, table, tokens, f32_or_bf16);
  table_of(y).embedding_forward(y, table, tokens, first, stream);
}

void embedding_backward(Tensor dtable, Tensor dy, Tensor tokens, std::int64_t first, Stream& stream) {
  check_all("embedding_backward", dy, dtable, tokens, DType::f32);
  table_of(dtable).embedding_backward(dtable, dy, tokens, first, stream);
}

void embedding_add(Tensor y, Tensor table, Tensor indices, Stream& stream) {
  check_all("embedding_add", y, table, indices, f32_or_bf16);
  table_of(y).embedding_add(y, table, indices, stream);
}

}  // namespace collimate::kernels
