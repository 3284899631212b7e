// NEON with the dot-product extension: sdot, four products a 32-bit lane.
#if defined(__aarch64__)

#include <arm_neon.h>
#include <sys/auxv.h>

#include <algorithm>
#include <cstring>

#include "ternary_matmul/kernel.h"

#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#define INLINE TARGET __attribute__((always_inline)) inline

namespace bitsearch {
namespace {

using Ints = int32x4_t;
constexpr int64_t kLanes = 4;  // of 32 bits
constexpr int kFewRows = 6;    // 24 sums of 32 registers
constexpr int kTileRows = 6;   // likewise
constexpr int kTileVectors = 4;

INLINE Ints Load(const void* p) {
  return vld1q_s32(static_cast<const int32_t*>(p));
}
INLINE void Store(void* p, Ints a) { vst1q_s32(static_cast<int32_t*>(p), a); }
INLINE Ints Zero() { return vdupq_n_s32(0); }
INLINE Ints Set8(int a) {
  return vreinterpretq_s32_s8(vdupq_n_s8(static_cast<int8_t>(a)));
}
INLINE Ints Set32(int a) { return vdupq_n_s32(a); }
INLINE Ints And(Ints a, Ints b) { return vandq_s32(a, b); }
INLINE Ints Add32(Ints a, Ints b) { return vaddq_s32(a, b); }
INLINE Ints Max32(Ints a, Ints b) { return vmaxq_s32(a, b); }
INLINE Ints Min32(Ints a, Ints b) { return vminq_s32(a, b); }
INLINE Ints ShiftRight16(Ints a, int n) {
  return vreinterpretq_s32_u16(
      vshlq_u16(vreinterpretq_u16_s32(a), vdupq_n_s16(static_cast<short>(-n))));
}
INLINE Ints Divide32(Ints a, int n) { return vshlq_s32(a, vdupq_n_s32(-n)); }
INLINE int32_t LargestLane(Ints a) { return vmaxvq_s32(a); }
INLINE int32_t SumOfLanes(Ints a) { return vaddvq_s32(a); }

INLINE void DotAdd(Ints& acc, Ints codes, Ints q) {
  acc = vdotq_s32(acc, vreinterpretq_s8_s32(codes), vreinterpretq_s8_s32(q));
}
// Bytes are signed here: the last field would not fit and is shifted down.
INLINE Ints Field(Ints w, int f) {
  return f < 3 ? And(w, Set8(3 << 2 * f))
               : vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(w), 6));
}
constexpr int FieldShift(int f) { return f < 3 ? 2 * f : 0; }

// The bits of up to kLanes floats, then zeros.
INLINE Ints LoadFloats(const float* x, int64_t count) {
  if (count >= kLanes) return vreinterpretq_s32_f32(vld1q_f32(x));
  float padded[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = x[i];
  return vreinterpretq_s32_f32(vld1q_f32(padded));
}
// x * factor, to the nearest integer, ties to even.
INLINE Ints Round(Ints x, float factor) {
  return vcvtnq_s32_f32(vmulq_n_f32(vreinterpretq_f32_s32(x), factor));
}
// Four vectors as bytes, one after the other; what does not fit saturates.
INLINE Ints Bytes(Ints a, Ints b, Ints c, Ints d) {
  const int16x8_t low = vcombine_s16(vqmovn_s32(a), vqmovn_s32(b));
  const int16x8_t high = vcombine_s16(vqmovn_s32(c), vqmovn_s32(d));
  return vreinterpretq_s32_s8(vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
}
INLINE Ints SumsOfFour(Ints bytes) {
  return vpaddlq_s16(vpaddlq_s8(vreinterpretq_s8_s32(bytes)));
}
INLINE void StoreUnaligned(void* p, Ints a) { Store(p, a); }
// kLanes integers within int8, as bytes.
INLINE void StoreBytes(int8_t* q, Ints a) {
  const int16x4_t words = vmovn_s32(a);
  const int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
  const int32_t four = vget_lane_s32(vreinterpret_s32_s8(bytes), 0);
  std::memcpy(q, &four, sizeof four);
}

// Eq. (8) for kLanes outputs, of which `count` exist.
INLINE void StoreOutputs(Ints acc, float step, const float* scale,
                         const float* bias, float* y, int64_t count) {
  const float32x4_t factor = vmulq_n_f32(vld1q_f32(scale), step);
  const float32x4_t sum =
      vaddq_f32(vmulq_f32(vcvtq_f32_s32(acc), factor), vld1q_f32(bias));
  if (count >= kLanes) return vst1q_f32(y, sum);
  float some[kLanes];
  vst1q_f32(some, sum);
  for (int64_t i = 0; i < count; ++i) y[i] = some[i];
}

bool Usable() { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }

}  // namespace
}  // namespace bitsearch

// After what they are written in.
#include "ternary_matmul/dot-inl.h"
#include "ternary_matmul/quantize-inl.h"

namespace bitsearch {
namespace {

const Registration registration({"neon", 10, Usable, AnyLayer, 16, kGroup,
                                 kBlockRows, 1, PackedBytes, Pack, Quantize,
                                 Multiply});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__aarch64__)
