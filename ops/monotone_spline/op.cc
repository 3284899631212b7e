// com.bithep::MonotoneSpline for onnxruntime: checks and runs.
#include "monotone_spline/op.h"

#include <cmath>

#include "monotone_spline/spline.h"
#include "onnxruntime/ort.h"

namespace bitsearch {
namespace {

enum Input { kX, kTheta };
enum Output { kY, kLogDet };

// Whether the attribute is the second of two words; absent means the first if
// there is a default.
bool RequireWord(const NodeInfo& node, const char* attribute, const char* first,
                 const char* second, bool has_default) {
  const std::string expected =
      "'" + std::string(first) + "' or '" + second + "'";
  const std::optional<std::string> word = node.text(attribute);
  if (!word && !has_default) Refuse(attribute, "no such attribute", expected);
  if (word && *word != first && *word != second)
    Refuse(attribute, "'" + *word + "'", expected);
  return word && *word == second;
}

int RequireInteger(const NodeInfo& node, const char* attribute, int64_t low,
                   int64_t high, std::optional<int64_t> fallback) {
  const std::string expected =
      std::to_string(low) + " to " + std::to_string(high);
  std::optional<int64_t> value = node.integer(attribute);
  if (!value) value = fallback;
  if (!value) Refuse(attribute, "no such attribute", expected);
  if (*value < low || *value > high)
    Refuse(attribute, std::to_string(*value), expected);
  return static_cast<int>(*value);
}

float RequireBound(const NodeInfo& node) {
  const char* expected = "a number above 0 and at most 1e6";
  const std::optional<float> bound = node.number("bound");
  if (!bound) Refuse("bound", "no such attribute", expected);
  if (!(*bound > 0 && *bound <= kMaxBound))
    Refuse("bound", std::to_string(*bound), expected);
  return *bound;
}

class MonotoneSpline {
 public:
  static constexpr char kName[] = "MonotoneSpline";
  static constexpr Slot kInputs[] = {{}, {}};
  static constexpr Slot kOutputs[] = {{}, {kFloat, true}};

  explicit MonotoneSpline(const NodeInfo& node)
      : kernel_(ChooseSplineKernel()),
        spline_{RequireWord(node, "kind", "rational-quadratic", "cubic", false),
                RequireInteger(node, "bins", kMinBins, kMaxBins, std::nullopt),
                RequireBound(node),
                RequireInteger(node, "inverse", 0, 1, 0) == 1,
                RequireWord(node, "out_of_bounds", "scalar", "event", true)} {
    const auto x = node.shape(kX), theta = node.shape(kTheta);
    // No dimensions here may also mean an unknown rank.
    if (x && theta && !x->empty() && !theta->empty()) Check(*x, *theta);
  }

  void Compute(const Call& call) const {
    const Tensor x = *call.input(kX), theta = *call.input(kTheta);
    Check(x.shape, theta.shape);
    const int64_t size = x.shape.back();
    const Shape row_shape(x.shape.begin(), x.shape.end() - 1);
    float* y = call.output(x.shape, kY);
    float* log_det = call.output(row_shape, kLogDet);
    Run(kernel_, spline_, x.data<float>(), theta.data<float>(), x.size() / size,
        size, call.pool(), y, log_det);
  }

 private:
  // Dimensions may be unknown, -1, when the session is created.
  void Check(const Shape& x, const Shape& theta) const {
    if (x.empty() || x.back() == 0)
      Refuse("X", Describe(x), "shape (..., S) with S at least 1");
    Shape expected = x;
    if (x.back() > 0 &&
        !Multiply(x.back(), spline_.parameters(), &expected.back()))
      Refuse("X", Describe(x), "fewer than 2^63 parameters in a row");
    bool fits = expected.size() == theta.size();
    for (size_t i = 0; fits && i < theta.size(); ++i)
      fits = expected[i] == theta[i] || expected[i] < 0 || theta[i] < 0;
    if (!fits)
      Refuse("theta", Describe(theta),
             Describe(expected) + ", " + std::to_string(spline_.parameters()) +
                 " for each value of X");
  }

  const SplineKernel& kernel_;
  const Spline spline_;
};

}  // namespace

const OrtCustomOp& MonotoneSplineOp() { return CustomOp<MonotoneSpline>(); }

}  // namespace bitsearch
