#if defined(__x86_64__)

#include <immintrin.h>

#define SPLINE_LANES 8
#define SPLINE_TARGET __attribute__((target("avx2,fma")))
#include "monotone_spline/math-inl.h"

namespace bitsearch {
namespace {

constexpr int kTileRows = 6;  // 12 sums of 16 registers

SPLINE_INLINE Float Fma(Float a, Float b, Float c) {
  return _mm256_fmadd_ps(a, b, c);
}

}  // namespace
}  // namespace bitsearch

#include "reproducible/arithmetic-inl.h"

namespace bitsearch {
namespace {

const ReproducibleRegistration registration(
    {"avx2", [] { return __builtin_cpu_supports("fma") > 0; }, kColumns,
     MultiplyRows, Sum, Softmax, Normalize, Apply});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__x86_64__)
