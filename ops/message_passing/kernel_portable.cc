// Vectors of four floats, which every processor has or the compiler emulates.
#define SPLINE_LANES 4
#define SPLINE_TARGET
#include "message_passing/arithmetic-inl.h"

namespace bitsearch {
namespace {

const MessageRegistration registration({"portable", Floats, Pass});

}  // namespace
}  // namespace bitsearch
