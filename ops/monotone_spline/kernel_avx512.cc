#if defined(__x86_64__)

#define SPLINE_LANES 16
#define SPLINE_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#include "monotone_spline/arithmetic-inl.h"

namespace bitsearch {
namespace {

const SplineRegistration vnni({"avx512vnni", Transform});
const SplineRegistration permute({"avx512permute", Transform});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__x86_64__)
