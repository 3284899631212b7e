// Eqs. (3) to (6) in the vectors of the including kernel_<isa>.cc.
#include <cstring>
#include <limits>

#include "kernel.h"

namespace bitsearch {
namespace {

TARGET void Quantize(const float* x, int64_t rows, int64_t k, float q_max,
                     const Activations& out) {
  const Ints magnitude = Set32(0x7fffffff);
  for (int64_t row = 0; row < rows; ++row, x += k) {
    int8_t* q = out.q + row * out.stride;
    // Magnitudes compare like their bit patterns, with NaN above infinity.
    Ints largest = Zero();
    for (int64_t j = 0; j < k; j += kLanes)
      largest = Max32(largest, And(LoadFloats(x + j, k - j), magnitude));
    const int32_t bits = LargestLane(largest);
    if (bits >= 0x7f800000) {
      std::memset(q, 0, out.stride);
      out.sum[row] = 0;
      out.step[row] = std::numeric_limits<float>::quiet_NaN();
      continue;
    }
    float gamma;
    std::memcpy(&gamma, &bits, sizeof gamma);
    gamma = std::max(gamma, kGammaFloor);
    const float inverse_step = q_max / gamma;
    Ints sum = Zero();
    for (int64_t j = 0; j < out.stride; j += kLanes) {
      const Ints rounded =
          Min32(Round(LoadFloats(x + j, k - j), inverse_step), Set32(127));
      sum = Add32(sum, rounded);
      StoreBytes(q + j, rounded);
    }
    out.sum[row] = SumOfLanes(sum);
    out.step[row] = gamma / q_max;
  }
}

}  // namespace
}  // namespace bitsearch
