#if defined(__x86_64__)

#define SPLINE_LANES 8
#define SPLINE_TARGET __attribute__((target("avx2")))
#include "monotone_spline/arithmetic-inl.h"

namespace bitsearch {
namespace {

const SplineRegistration registration({"avx2", Transform});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__x86_64__)
