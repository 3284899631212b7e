#if defined(__x86_64__)

#define SPLINE_LANES 8
#define SPLINE_TARGET __attribute__((target("avx2")))
#include "message_passing/arithmetic-inl.h"

namespace bitsearch {
namespace {

const MessageRegistration registration({"avx2", Floats, Pass});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__x86_64__)
