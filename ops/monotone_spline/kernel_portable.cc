// Vectors of four floats, which every processor has or the compiler emulates.
#define SPLINE_LANES 4
#define SPLINE_TARGET
#include "monotone_spline/arithmetic-inl.h"

namespace bitsearch {
namespace {

const SplineRegistration registration({"portable", Transform});

}  // namespace
}  // namespace bitsearch
