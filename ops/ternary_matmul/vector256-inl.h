// 256-bit vectors: what quantize, dot and table are written in. TARGET
// and INLINE come from the including kernel_<isa>.cc.
#include <immintrin.h>

#include <algorithm>

#include "ternary_matmul/kernel.h"

namespace bitsearch {
namespace {

using Ints = __m256i;
constexpr int64_t kLanes = 8;  // of 32 bits

INLINE Ints Load(const void* p) {
  return _mm256_load_si256(static_cast<const __m256i*>(p));
}
INLINE void Store(void* p, Ints a) {
  _mm256_store_si256(static_cast<__m256i*>(p), a);
}
INLINE Ints Zero() { return _mm256_setzero_si256(); }
INLINE Ints Set8(int a) { return _mm256_set1_epi8(static_cast<char>(a)); }
INLINE Ints Set16(int a) { return _mm256_set1_epi16(static_cast<short>(a)); }
INLINE Ints Set32(int a) { return _mm256_set1_epi32(a); }
INLINE Ints And(Ints a, Ints b) { return _mm256_and_si256(a, b); }
INLINE Ints Or(Ints a, Ints b) { return _mm256_or_si256(a, b); }
INLINE Ints Add16(Ints a, Ints b) { return _mm256_add_epi16(a, b); }
INLINE Ints Add32(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
INLINE Ints Sub16(Ints a, Ints b) { return _mm256_sub_epi16(a, b); }
INLINE Ints Max32(Ints a, Ints b) { return _mm256_max_epi32(a, b); }
INLINE Ints Min32(Ints a, Ints b) { return _mm256_min_epi32(a, b); }
INLINE Ints ShiftLeft32(Ints a, int n) { return _mm256_slli_epi32(a, n); }
INLINE Ints ShiftLeft16(Ints a, int n) { return _mm256_slli_epi16(a, n); }
INLINE Ints ShiftRight16(Ints a, int n) { return _mm256_srli_epi16(a, n); }
INLINE Ints ShiftRight32(Ints a, int n) { return _mm256_srli_epi32(a, n); }
INLINE Ints Divide16(Ints a, int n) { return _mm256_srai_epi16(a, n); }
INLINE Ints Divide32(Ints a, int n) { return _mm256_srai_epi32(a, n); }
// Sums of pairs: of unsigned times signed bytes, of 16-bit products.
INLINE Ints MultiplyBytes(Ints a, Ints b) { return _mm256_maddubs_epi16(a, b); }
INLINE Ints Multiply16(Ints a, Ints b) { return _mm256_madd_epi16(a, b); }
// The even 16-bit lanes of a and the odd ones of b.
INLINE Ints Blend16(Ints a, Ints b) { return _mm256_blend_epi16(a, b, 0xaa); }
INLINE Ints Low32(Ints a, Ints b) { return _mm256_unpacklo_epi32(a, b); }
INLINE Ints High32(Ints a, Ints b) { return _mm256_unpackhi_epi32(a, b); }
INLINE Ints Low64(Ints a, Ints b) { return _mm256_unpacklo_epi64(a, b); }
INLINE Ints High64(Ints a, Ints b) { return _mm256_unpackhi_epi64(a, b); }

// The 16 bytes piece(i), piece(i + 4), ... as one vector.
template <class Piece>
INLINE Ints Pieces(Piece piece, int64_t i) {
  return _mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(piece(i + 4)),
                             reinterpret_cast<const __m128i*>(piece(i)));
}

INLINE int32_t LargestLane(Ints a) {
  a = Max32(a, _mm256_permute2x128_si256(a, a, 1));
  a = Max32(a, _mm256_shuffle_epi32(a, 0x4e));
  a = Max32(a, _mm256_shuffle_epi32(a, 0xb1));
  return _mm256_cvtsi256_si32(a);
}
INLINE int32_t SumOfLanes(Ints a) {
  a = Add32(a, _mm256_permute2x128_si256(a, a, 1));
  a = Add32(a, _mm256_shuffle_epi32(a, 0x4e));
  a = Add32(a, _mm256_shuffle_epi32(a, 0xb1));
  return _mm256_cvtsi256_si32(a);
}

// All ones in the lanes below `count`.
INLINE Ints Below(int64_t count) {
  const int limit = static_cast<int>(std::min(count, kLanes));
  return _mm256_cmpgt_epi32(Set32(limit),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
// The bits of up to kLanes floats, then zeros.
INLINE Ints LoadFloats(const float* x, int64_t count) {
  if (count >= kLanes)
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  return _mm256_maskload_epi32(reinterpret_cast<const int*>(x), Below(count));
}
// x * factor, to the nearest integer, ties to even.
INLINE Ints Round(Ints x, float factor) {
  return _mm256_cvtps_epi32(
      _mm256_mul_ps(_mm256_castsi256_ps(x), _mm256_set1_ps(factor)));
}
// Four vectors as bytes, one after the other; what does not fit saturates.
INLINE Ints Bytes(Ints a, Ints b, Ints c, Ints d) {
  const Ints bytes =
      _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
  return _mm256_permutevar8x32_epi32(bytes,
                                     _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
INLINE Ints SumsOfFour(Ints bytes) {
  return Multiply16(MultiplyBytes(Set8(1), bytes), Set16(1));
}
INLINE void StoreUnaligned(void* p, Ints a) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), a);
}
// kLanes integers within int8, as bytes.
INLINE void StoreBytes(int8_t* q, Ints a) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(a),
                                        _mm256_extracti128_si256(a, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(q),
                   _mm_packs_epi16(words, words));
}

// Eq. (8) for kLanes outputs, of which `count` exist.
INLINE void StoreOutputs(Ints acc, float step, const float* scale,
                         const float* bias, float* y, int64_t count) {
  const __m256 factor =
      _mm256_mul_ps(_mm256_set1_ps(step), _mm256_loadu_ps(scale));
  const __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(acc), factor);
  const __m256 sum = _mm256_add_ps(product, _mm256_loadu_ps(bias));
  if (count >= kLanes)
    _mm256_storeu_ps(y, sum);
  else if (count > 0)
    _mm256_maskstore_ps(y, Below(count), sum);
}

}  // namespace
}  // namespace bitsearch
