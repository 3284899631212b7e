// 512-bit vectors: what quantize, dot and kernel_avx512permute.cc are
// written in. TARGET and INLINE come from the including kernel_<isa>.cc.
#include <immintrin.h>

#include <algorithm>

#include "ternary_matmul/kernel.h"

namespace bitsearch {
namespace {

using Ints = __m512i;
constexpr int64_t kLanes = 16;  // of 32 bits

INLINE Ints Load(const void* p) { return _mm512_load_si512(p); }
INLINE void Store(void* p, Ints a) { _mm512_store_si512(p, a); }
INLINE Ints LoadUnaligned(const void* p) { return _mm512_loadu_si512(p); }
INLINE void StoreUnaligned(void* p, Ints a) { _mm512_storeu_si512(p, a); }
// Fewer than 64 bytes, then zeros.
INLINE Ints LoadBytes(const void* p, int64_t count) {
  return _mm512_maskz_loadu_epi8((uint64_t{1} << count) - 1, p);
}
INLINE Ints Zero() { return _mm512_setzero_si512(); }
INLINE Ints Set8(int a) { return _mm512_set1_epi8(static_cast<char>(a)); }
INLINE Ints Set16(int a) { return _mm512_set1_epi16(static_cast<short>(a)); }
INLINE Ints Set32(int a) { return _mm512_set1_epi32(a); }
INLINE Ints And(Ints a, Ints b) { return _mm512_and_si512(a, b); }
INLINE Ints Add16(Ints a, Ints b) { return _mm512_add_epi16(a, b); }
INLINE Ints Add32(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
INLINE Ints Sub16(Ints a, Ints b) { return _mm512_sub_epi16(a, b); }
INLINE Ints Max32(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
INLINE Ints Min32(Ints a, Ints b) { return _mm512_min_epi32(a, b); }
INLINE Ints ShiftRight16(Ints a, int n) { return _mm512_srli_epi16(a, n); }
INLINE Ints Divide32(Ints a, int n) { return _mm512_srai_epi32(a, n); }
// Sums of pairs: of unsigned times signed bytes, of 16-bit products.
INLINE Ints MultiplyBytes(Ints a, Ints b) { return _mm512_maddubs_epi16(a, b); }
INLINE Ints Multiply16(Ints a, Ints b) { return _mm512_madd_epi16(a, b); }
INLINE int32_t LargestLane(Ints a) { return _mm512_reduce_max_epi32(a); }
INLINE int32_t SumOfLanes(Ints a) { return _mm512_reduce_add_epi32(a); }

// The lanes below `count`.
INLINE __mmask16 Below(int64_t count) {
  return count >= kLanes
             ? 0xffff
             : static_cast<__mmask16>((1u << std::max(count, int64_t{0})) - 1);
}
// The bits of up to kLanes floats, then zeros.
INLINE Ints LoadFloats(const float* x, int64_t count) {
  if (count >= kLanes) return _mm512_loadu_si512(x);  // no mask to be made
  return _mm512_maskz_loadu_epi32(Below(count), x);
}
// x * factor, to the nearest integer, ties to even.
INLINE Ints Round(Ints x, float factor) {
  return _mm512_cvtps_epi32(
      _mm512_mul_ps(_mm512_castsi512_ps(x), _mm512_set1_ps(factor)));
}
// Four vectors as bytes, one after the other; what does not fit saturates.
INLINE Ints Bytes(Ints a, Ints b, Ints c, Ints d) {
  const Ints bytes =
      _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
  return _mm512_permutexvar_epi32(
      _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
      bytes);
}
INLINE Ints SumsOfFour(Ints bytes) {
  return Multiply16(MultiplyBytes(Set8(1), bytes), Set16(1));
}
// kLanes integers within int8, as bytes.
INLINE void StoreBytes(int8_t* q, Ints a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_cvtepi32_epi8(a));
}

// Eq. (8) for kLanes outputs, of which `count` exist.
INLINE void StoreOutputs(Ints acc, float step, const float* scale,
                         const float* bias, float* y, int64_t count) {
  const __m512 factor =
      _mm512_mul_ps(_mm512_set1_ps(step), _mm512_loadu_ps(scale));
  const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), factor);
  const __m512 sum = _mm512_add_ps(product, _mm512_loadu_ps(bias));
  if (count >= kLanes)
    _mm512_storeu_ps(y, sum);  // at twice the rate of a masked one
  else if (count > 0)
    _mm512_mask_storeu_ps(y, Below(count), sum);
}

}  // namespace
}  // namespace bitsearch
