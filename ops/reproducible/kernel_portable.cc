// Vectors of four floats. On x86 a product and a sum with one rounding are a
// call of the C library each: right, but slow.
#define SPLINE_LANES 4
#define SPLINE_TARGET
#include "monotone_spline/math-inl.h"

namespace bitsearch {
namespace {

constexpr int kTileRows = 6;

inline Float Fma(Float a, Float b, Float c) {
  for (int lane = 0; lane < kLanes; ++lane)
    c[lane] = std::fma(a[lane], b[lane], c[lane]);
  return c;
}

}  // namespace
}  // namespace bitsearch

#include "reproducible/arithmetic-inl.h"

namespace bitsearch {
namespace {

const ReproducibleRegistration registration({"portable", [] { return true; },
                                             kColumns, MultiplyRows, Sum,
                                             Softmax, Normalize, Apply});

}  // namespace
}  // namespace bitsearch
