// Vectors of four floats, which every processor has or the compiler emulates.
#define SPLINE_LANES 4
#define SPLINE_TARGET
#include "ternary_chain/activation-inl.h"

namespace bitsearch {
namespace {

const ActivationRegistration registration({"portable", Apply});

}  // namespace
}  // namespace bitsearch
