#if defined(__x86_64__)

#define SPLINE_LANES 8
#define SPLINE_TARGET __attribute__((target("avx2")))
#include "spline_body.h"

namespace bitsearch {
namespace {

const SplineRegistration registration(
    {10, [] { return __builtin_cpu_supports("avx2") != 0; }, Transform});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__x86_64__)
