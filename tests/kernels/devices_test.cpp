// bf16 operands on the devices of tests and of plans: the strict device computes what the host does, the dry one counts two bytes a number.
#include "collimate/device/dry_device.hpp"
#include "collimate/device/memory_plan.hpp"
#include "collimate/device/strict_device.hpp"
#include "collimate/kernels/elementwise.hpp"
#include "collimate/kernels/embedding.hpp"
#include "collimate/kernels/matmul.hpp"
#include "kernels/support.hpp"

namespace collimate::kernels {
namespace {

TEST(Bf16Devices, StrictDeviceComputesWhatTheHostDoes) {
  Host host;
  const Tensor wide = host.random({5, 48}, 1), x = host.random({3, 48}, 2), brief = host.make({5, 48}, DType::bf16), y = host.make({3, 5});
  const Tensor back = host.make({5, 48});
  cast(brief, wide, host.stream());
  cast(back, brief, host.stream());
  linear_decode(y, x, brief, {}, host.stream());

  const auto device = make_strict_device();
  MemoryPlan plan(*device);
  const auto place = [&](const Tensor& like, Memory memory) {
    return plan.reserve("a tensor", like.shape(), like.dtype(), Lifetime::always, memory);
  };
  const Slot slots[] = {place(wide, Memory::device), place(x, Memory::device), place(brief, Memory::device), place(y, Memory::device),
                        place(back, Memory::device)};
  const Slot from[] = {place(wide, Memory::pinned), place(x, Memory::pinned)},
             to[] = {place(y, Memory::pinned), place(back, Memory::pinned)};
  plan.commit();
  const auto at = [&](const Slot& slot, const Tensor& like) { return plan.at(slot, like.shape(), like.dtype()); };
  const Tensor wide_here = at(slots[0], wide), x_here = at(slots[1], x), brief_here = at(slots[2], brief), y_here = at(slots[3], y);
  const Tensor back_here = at(slots[4], back), got_y = at(to[0], y), got_back = at(to[1], back);
  std::memcpy(at(from[0], wide).data(), wide.data(), wide.bytes());
  std::memcpy(at(from[1], x).data(), x.data(), x.bytes());
  Stream& stream = device->stream();
  copy(wide_here, at(from[0], wide), stream);
  copy(x_here, at(from[1], x), stream);
  cast(brief_here, wide_here, stream);
  cast(back_here, brief_here, stream);
  linear_decode(y_here, x_here, brief_here, {}, stream);
  copy(got_y, y_here, stream);
  copy(got_back, back_here, stream);
  stream.wait();
  EXPECT_TRUE(same_bits(got_y, y));
  EXPECT_TRUE(same_bits(got_back, back));
}

TEST(Bf16Devices, DryDeviceCountsTwoBytesANumber) {
  const auto device = make_dry_device();
  std::vector<Buffer> buffers;
  const auto make = [&](Shape shape, DType dtype) {
    buffers.emplace_back(*device, static_cast<std::size_t>(shape.count()) * size_of(dtype), Memory::device);
    return Tensor(buffers.back().data(), dtype, shape, *device);
  };
  const auto cost = [&](auto&& call) {
    const Cost before = device->meter();
    call(device->stream());
    return device->meter() - before;
  };
  const Tensor wide = make({1000}, DType::f32), brief = make({1000}, DType::bf16);
  const Cost narrowed = cost([&](Stream& stream) { cast(brief, wide, stream); });
  EXPECT_EQ(narrowed.read, 4000);
  EXPECT_EQ(narrowed.written, 2000);
  EXPECT_EQ(narrowed.kernels, 1);
  const Tensor x = make({1, 30}, DType::f32), w = make({20, 30}, DType::bf16), y = make({1, 20}, DType::f32);
  EXPECT_EQ(cost([&](Stream& stream) { linear_decode(y, x, w, {}, stream); }).read, 4 * 30 + 2 * 20 * 30);
  const Tensor rows = make({7, 30}, DType::f32), tokens = make({7}, DType::i32);
  const Cost looked_up = cost([&](Stream& stream) { embedding_forward(rows, w, tokens, 0, stream); });
  EXPECT_EQ(looked_up.read, 2 * 7 * 30 + 4 * 7);
  EXPECT_EQ(looked_up.written, 4 * 7 * 30);
  EXPECT_EQ(cost([&](Stream& stream) { embedding_add(rows, w, tokens, stream); }).read, (2 + 4) * 7 * 30 + 4 * 7);
}

}  // namespace
}  // namespace collimate::kernels
