#include "collimate/kernels/embedding.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/embedding.hpp"

namespace collimate::kernels {
namespace {

void check_all(std::string_view name, const Tensor& rows, const Tensor& table, const Tensor& tokens) {
  check_rank(name, "table", table, 2);
  check_rank(name, "tokens", tokens, 1, DType::i32);
  check(name, "the rows", rows, {tokens[0], table[1]});
}

}  // namespace

void embedding_forward(Tensor y, Tensor table, Tensor tokens, std::int64_t first, Stream&) {
  check_all("embedding_forward", y, table, tokens);
  cpu::embedding_forward(y.as<float>(), table.as<float>(), tokens.as<std::int32_t>(), first, false, tokens[0], table[0], table[1]);
}

void embedding_backward(Tensor dtable, Tensor dy, Tensor tokens, std::int64_t first, Stream&) {
  check_all("embedding_backward", dy, dtable, tokens);
  cpu::embedding_backward(dtable.as<float>(), dy.as<float>(), tokens.as<std::int32_t>(), first, tokens[0], dtable[0], dtable[1]);
}

void embedding_add(Tensor y, Tensor table, Tensor indices, Stream&) {
  check_all("embedding_add", y, table, indices);
  cpu::embedding_forward(y.as<float>(), table.as<float>(), indices.as<std::int32_t>(), 0, true, indices[0], table[0], table[1]);
}

}  // namespace collimate::kernels
