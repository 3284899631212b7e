#if defined(__x86_64__)

#define SPLINE_LANES 16
#define SPLINE_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#include "message_passing/arithmetic-inl.h"

namespace bitsearch {
namespace {

const MessageRegistration vnni({"avx512vnni", Floats, Pass});
const MessageRegistration permute({"avx512permute", Floats, Pass});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__x86_64__)
