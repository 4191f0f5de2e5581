#include "collimate/kernels/norm.hpp"

#include "kernels/support.hpp"

namespace collimate::kernels {
namespace {

using Index = std::int64_t;
using Vector = std::vector<double>;

constexpr float eps = 1e-5f;

/// y of a layer norm (with bias) or an RMS norm (bias empty).
Vector oracle(const Vector& x, const Vector& gain, const Vector& bias, Index rows, Index columns) {
  Vector y(x.size());
  for (Index r = 0; r < rows; ++r) {
    double mean = 0, square = 0;
    for (Index c = 0; c < columns && !bias.empty(); ++c) mean += x[r * columns + c] / static_cast<double>(columns);
    for (Index c = 0; c < columns; ++c) square += std::pow(x[r * columns + c] - mean, 2) / static_cast<double>(columns);
    for (Index c = 0; c < columns; ++c)
      y[r * columns + c] = (x[r * columns + c] - mean) / std::sqrt(square + eps) * gain[c] + (bias.empty() ? 0 : bias[c]);
  }
  return y;
}

struct Norms {
  Host host;
  Index rows, columns;
  Tensor x = host.random({rows, columns}, 1, 2.0f), gain = host.random({columns}, 2), bias = host.random({columns}, 3);
  Tensor dy = host.random({rows, columns}, 4);
  Tensor y = host.make({rows, columns}), mean = host.make({rows}), rstd = host.make({rows});
  Tensor dgain = host.filled({columns}, not_a_number), dbias = host.filled({columns}, not_a_number);
  Norms(Index rows, Index columns) : rows(rows), columns(columns) {}
  void forward(bool layer) {
    if (layer)
      layer_norm_forward(y, mean, rstd, x, gain, bias, eps, host.stream());
    else
      rms_norm_forward(y, rstd, x, gain, eps, host.stream());
  }
  void backward(bool layer, Tensor dx, Write write, Write write_parameters = Write::replace) {
    if (layer)
      layer_norm_backward(dx, dgain, dbias, dy, x, gain, mean, rstd, write, write_parameters, host.stream());
    else
      rms_norm_backward(dx, dgain, dy, x, gain, rstd, write, write_parameters, host.stream());
  }
  Vector bias_of(bool layer) const { return layer ? doubles(bias) : Vector{}; }
};

TEST(Norm, AgreesWithDoubleAndCentralDifferences) {
  for (const bool layer : {false, true})
    for (const auto& [rows, columns] : {std::pair<Index, Index>{5, 48}, {3, 7}, {4, 33}, {600, 3}}) {
      SCOPED_TRACE(fmt::format("{} rows {} columns {}", layer ? "layer" : "rms", rows, columns));
      Norms norm(rows, columns);
      norm.forward(layer);
      const Vector x = doubles(norm.x), gain = doubles(norm.gain), bias = norm.bias_of(layer), dy = doubles(norm.dy);
      expect_near(norm.y, oracle(x, gain, bias, rows, columns), 2e-6, "y");
      const auto loss = [&](const Vector& x, const Vector& gain, const Vector& bias) {
        return dot(dy, oracle(x, gain, bias, rows, columns));
      };
      Vector dx = central_differences(x, [&](const Vector& v) { return loss(v, gain, bias); });
      const Tensor got = norm.host.filled({rows, columns}, not_a_number);
      norm.backward(layer, got, Write::replace);
      expect_near(got, dx, 1e-5, "dx");
      expect_near(norm.dgain, central_differences(gain, [&](const Vector& v) { return loss(x, v, bias); }), 1e-5, "dgain");
      if (layer) expect_near(norm.dbias, central_differences(bias, [&](const Vector& v) { return loss(x, gain, v); }), 1e-5, "dbias");
      for (double& v : dx) v += 3;
      const Tensor added = norm.host.filled({rows, columns}, 3.0f);
      norm.backward(layer, added, Write::add);
      expect_near(added, dx, 1e-5, "dx added");
    }
}

TEST(Norm, RowsAndThreadsDoNotChangeBits) {
  for (const bool layer : {false, true}) {
    Norms norm(700, 48), poisoned(700, 48);
    for (const Index row : {0, 3, 699}) poisoned.x.as<float>()[row * 48] = not_a_number;
    norm.forward(layer);
    poisoned.forward(layer);
    EXPECT_TRUE(same_bits(norm.y.slice(4, 600), poisoned.y.slice(4, 600)));
    const auto backward = [&](auto pick) {
      const Tensor dx = norm.host.make(norm.x.shape());
      norm.backward(layer, dx, Write::replace);
      return norm.host.copy(pick(dx));
    };
    expect_same_bits_for_all_threads([&] { norm.forward(layer); return norm.host.copy(norm.y); });
    expect_same_bits_for_all_threads([&] { return backward([](Tensor dx) { return dx; }); });
    expect_same_bits_for_all_threads([&] { return backward([&](Tensor) { return norm.dgain; }); });
    if (layer) expect_same_bits_for_all_threads([&] { return backward([&](Tensor) { return norm.dbias; }); });
  }
}

// Column sums go on where the last rows stopped, block after block: two calls of whole blocks give the bits of one.
TEST(Norm, GradientsOfParametersGoOn) {
  for (const bool layer : {false, true}) {
    Norms norm(700, 48);
    norm.forward(layer);
    const Tensor dx = norm.host.make(norm.x.shape());
    norm.backward(layer, dx, Write::replace);
    const Tensor dgain = norm.host.copy(norm.dgain), dbias = norm.host.copy(norm.dbias);
    Norms part(700, 48);
    part.gain = norm.gain, part.bias = norm.bias;
    part.dgain = norm.host.filled({48}, not_a_number), part.dbias = norm.host.filled({48}, not_a_number);
    for (const auto& [begin, count] : {std::pair<Index, Index>{0, 512}, {512, 188}}) {
      for (auto at : {&Norms::x, &Norms::dy, &Norms::mean, &Norms::rstd}) part.*at = (norm.*at).slice(begin, count);
      part.backward(layer, dx.slice(begin, count), Write::replace, begin ? Write::add : Write::replace);
    }
    EXPECT_TRUE(same_bits(part.dgain, dgain));
    EXPECT_TRUE(!layer || same_bits(part.dbias, dbias));
    part.backward(layer, dx.slice(0, 188), Write::replace, Write::add);
    EXPECT_FALSE(same_bits(part.dgain, dgain));
  }
}

TEST(Norm, RefusesWrongShapes) {
  Norms norm(4, 8);
  Host& host = norm.host;
  EXPECT_THROW(rms_norm_forward(norm.y, host.make({3}), norm.x, norm.gain, eps, host.stream()), Error);
  EXPECT_THROW(rms_norm_forward(norm.y, norm.rstd, norm.x, host.make({9}), eps, host.stream()), Error);
  EXPECT_THROW(layer_norm_forward(norm.y, norm.mean, norm.rstd, norm.x, norm.gain, host.make({4}), eps, host.stream()), Error);
  EXPECT_THROW(rms_norm_backward(host.make({4, 9}), norm.dgain, norm.dy, norm.x, norm.gain, norm.rstd, Write::replace, Write::replace, host.stream()),
               Error);
  EXPECT_THROW(layer_norm_backward(norm.x, {}, norm.dbias, norm.dy, norm.x, norm.gain, norm.mean, norm.rstd, Write::replace, Write::replace, host.stream()),
               Error);
}

}  // namespace
}  // namespace collimate::kernels
