#if defined(__x86_64__)

#define SPLINE_LANES 16
#define SPLINE_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#include "spline_body.h"

namespace bitsearch {
namespace {

bool Usable() {
  return __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

const SplineRegistration registration({30, Usable, Transform});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__x86_64__)
