// The kernel to read: every other one is held to it bit for bit.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "ternary_matmul/kernel.h"

namespace bitsearch {
namespace {

constexpr uint32_t kInfinityBits = 0x7f800000;

// One byte a weight: -1, 0 or 1.
int64_t PackedBytes(int64_t n, int64_t k) { return n * k; }

void Pack(const uint8_t* w, int64_t n, int64_t k, uint8_t* packed) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j)
      *packed++ = static_cast<uint8_t>(Code(w + i * DivideUp(k, 4), j) - 1);
}

// Magnitudes compare like their bit patterns, with NaN above infinity.
uint32_t LargestMagnitudeBits(const float* x, int64_t k) {
  uint32_t largest = 0;
  for (int64_t j = 0; j < k; ++j) {
    uint32_t bits;
    std::memcpy(&bits, x + j, sizeof bits);
    largest = std::max(largest, bits & 0x7fffffff);
  }
  return largest;
}

void Quantize(const float* x, int64_t rows, int64_t k, float q_max,
              const Activations& out) {
  const long high = std::min(static_cast<long>(q_max), 127L);
  for (int64_t row = 0; row < rows; ++row, x += k) {
    int8_t* q = out.q + row * out.stride;
    const uint32_t bits = LargestMagnitudeBits(x, k);
    out.sum[row] = 0;
    if (bits >= kInfinityBits) {
      std::memset(q, 0, out.stride);
      out.step[row] = std::numeric_limits<float>::quiet_NaN();
      continue;
    }
    float largest;
    std::memcpy(&largest, &bits, sizeof largest);
    const float gamma = std::max(largest, kGammaFloor);
    const float inverse_step = q_max / gamma;
    for (int64_t j = 0; j < k; ++j) {
      q[j] = static_cast<int8_t>(
          std::clamp(std::lrintf(x[j] * inverse_step), -128L, high));
      out.sum[row] += q[j];
    }
    out.step[row] = gamma / q_max;
  }
}

void Multiply(const Layer& layer, const Activations& x, Range rows,
              Range groups, float* y) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int8_t* q = x.q + row * x.stride;
    for (int64_t i = groups.begin; i < groups.end; ++i) {
      const auto* w =
          reinterpret_cast<const int8_t*>(layer.weights) + i * layer.k;
      int32_t acc = 0;
      for (int64_t j = 0; j < layer.k; ++j) acc += q[j] * w[j];
      y[row * layer.n + i] =
          static_cast<float>(acc) * (x.step[row] * layer.scale[i]) +
          layer.bias[i];
    }
  }
}

const Registration registration({"portable", 0, [] { return true; }, AnyLayer,
                                 1, 1, 64, 1, PackedBytes, Pack, Quantize,
                                 Multiply});

}  // namespace
}  // namespace bitsearch
