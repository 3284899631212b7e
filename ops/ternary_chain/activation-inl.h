// Eqs. (3) to (6) in the vectors of the including kernel_<isa>.cc.
#include <cstring>

#include "monotone_spline/math-inl.h"
#include "ternary_chain/activation.h"

namespace bitsearch {
namespace {

// Eq. (2): x gate(x), where the gate is 0 below the range of the exponential.
SPLINE_INLINE Float Gated(Float x, Float u) {
  return x * (u < kExpFloor ? Float{} : Sigmoid(u));
}

template <Function kFunction>
SPLINE_INLINE Float Activate(Float x, float alpha) {
  if constexpr (kFunction == Function::kRelu) return x < 0.0f ? Float{} : x;
  if constexpr (kFunction == Function::kLeakyRelu)
    return x < 0.0f ? x * alpha : x;
  if constexpr (kFunction == Function::kSilu) return Gated(x, x);
  if constexpr (kFunction == Function::kGelu)
    return Gated(x, (x + ((x * x) * x) * 0.044715f) * 1.5957691216057308f);
}

template <Function kFunction>
SPLINE_TARGET void ApplyTo(float alpha, float* x, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const size_t bytes = 4 * std::min<int64_t>(kLanes, count - i);
    Float value{};
    // Of constant size where it can be: a load and not a call.
    if (bytes == sizeof value)
      std::memcpy(&value, x + i, sizeof value);
    else
      std::memcpy(&value, x + i, bytes);
    value = Activate<kFunction>(value, alpha);
    if (bytes == sizeof value)
      std::memcpy(x + i, &value, sizeof value);
    else
      std::memcpy(x + i, &value, bytes);
  }
}

void Apply(const Activation& activation, float* x, int64_t count) {
  switch (activation.function) {
    case Function::kRelu:
      return ApplyTo<Function::kRelu>(0, x, count);
    case Function::kLeakyRelu:
      return ApplyTo<Function::kLeakyRelu>(activation.alpha, x, count);
    case Function::kSilu:
      return ApplyTo<Function::kSilu>(0, x, count);
    case Function::kGelu:
      return ApplyTo<Function::kGelu>(0, x, count);
  }
}

}  // namespace
}  // namespace bitsearch
