#if defined(__x86_64__)

#define SPLINE_LANES 16
#define SPLINE_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#include "ternary_chain/activation-inl.h"

namespace bitsearch {
namespace {

const ActivationRegistration vnni({"avx512vnni", Apply});
const ActivationRegistration permute({"avx512permute", Apply});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__x86_64__)
