#if defined(__x86_64__)

#include <immintrin.h>

#define SPLINE_LANES 16
#define SPLINE_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#include "monotone_spline/math-inl.h"

namespace bitsearch {
namespace {

constexpr int kTileRows = 12;  // 24 sums of 32 registers

SPLINE_INLINE Float Fma(Float a, Float b, Float c) {
  return _mm512_fmadd_ps(a, b, c);
}

}  // namespace
}  // namespace bitsearch

#include "reproducible/arithmetic-inl.h"

namespace bitsearch {
namespace {

bool Usable() { return true; }  // wherever its names in Kernels() are

const ReproducibleRegistration vnni({"avx512vnni", Usable, kColumns,
                                     MultiplyRows, Sum, Softmax, Normalize,
                                     Apply});
const ReproducibleRegistration permute({"avx512permute", Usable, kColumns,
                                        MultiplyRows, Sum, Softmax, Normalize,
                                        Apply});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__x86_64__)
