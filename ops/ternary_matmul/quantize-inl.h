// Eqs. (3) to (6) in the vectors of the including kernel_<isa>.cc.
#include <algorithm>
#include <cstring>
#include <limits>

#include "ternary_matmul/kernel.h"

namespace bitsearch {
namespace {

// One row, whose largest magnitude has the bits `largest`.
INLINE void QuantizeRow(const float* x, int64_t k, float q_max, int32_t largest,
                        int64_t row, const Activations& out) {
  int8_t* q = out.q + row * out.stride;
  if (largest >= 0x7f800000) {
    std::memset(q, 0, out.stride);
    out.sum[row] = 0;
    out.step[row] = std::numeric_limits<float>::quiet_NaN();
    return;
  }
  float gamma;
  std::memcpy(&gamma, &largest, sizeof gamma);
  gamma = std::max(gamma, kGammaFloor);
  const float inverse_step = q_max / gamma;
  Ints sum = Zero();
  int64_t j = 0;
  for (; j + 4 * kLanes <= k; j += 4 * kLanes) {
    Ints part[4];
    for (int i = 0; i < 4; ++i)
      part[i] = Round(LoadFloats(x + j + i * kLanes, kLanes), inverse_step);
    const Ints bytes = Bytes(part[0], part[1], part[2], part[3]);
    StoreUnaligned(q + j, bytes);
    sum = Add32(sum, SumsOfFour(bytes));
  }
  for (; j < out.stride; j += kLanes) {
    const Ints rounded =
        Min32(Round(LoadFloats(x + j, k - j), inverse_step), Set32(127));
    sum = Add32(sum, rounded);
    StoreBytes(q + j, rounded);
  }
  out.sum[row] = SumOfLanes(sum);
  out.step[row] = gamma / q_max;
}

TARGET void Quantize(const float* x, int64_t rows, int64_t k, float q_max,
                     const Activations& out) {
  // Some rows at a time, so that a processor hides what one row waits for.
  constexpr int64_t kTogether = 8;
  const Ints magnitude = Set32(0x7fffffff);
  for (int64_t begin = 0; begin < rows; begin += kTogether) {
    const int64_t end = std::min(begin + kTogether, rows);
    int32_t bits[kTogether];
    for (int64_t row = begin; row < end; ++row) {
      // Magnitudes compare like their bit patterns, with NaN above infinity.
      Ints largest = Zero();
      for (int64_t j = 0; j < k; j += kLanes)
        largest =
            Max32(largest, And(LoadFloats(x + row * k + j, k - j), magnitude));
      bits[row - begin] = LargestLane(largest);
    }
    for (int64_t row = begin; row < end; ++row)
      QuantizeRow(x + row * k, k, q_max, bits[row - begin], row, out);
  }
}

}  // namespace
}  // namespace bitsearch
