#if defined(__x86_64__)

#define SPLINE_LANES 8
#define SPLINE_TARGET __attribute__((target("avx2")))
#include "ternary_chain/activation-inl.h"

namespace bitsearch {
namespace {

const ActivationRegistration registration({"avx2", Apply});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__x86_64__)
