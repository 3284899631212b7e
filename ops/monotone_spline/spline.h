// Monotone splines: the seam between onnxruntime and arithmetic. Equation
// numbers are those of README.md.
#ifndef BITSEARCH_MONOTONE_SPLINE_SPLINE_H_
#define BITSEARCH_MONOTONE_SPLINE_SPLINE_H_

#include <vector>

#include "parallel.h"

namespace bitsearch {

constexpr int kMinBins = 2;
constexpr int kMaxBins = 64;
constexpr float kMaxBound = 1e6f;

struct Spline {
  bool cubic;  // else rational quadratic
  int bins;
  float bound;
  bool inverse;
  bool whole_event;  // one value out of bounds keeps all of its row unchanged

  int parameters() const { return cubic ? 2 * bins + 2 : 3 * bins - 1; }
};

// One vector width. A file kernel_<isa>.cc fills one in and registers it.
struct SplineKernel {
  const char* name;  // of the Kernel whose processors run it
  // `count` values x with theta [count][parameters], Eqs. (9) to (26).
  // log_slope may be null.
  void (*transform)(const Spline& spline, const float* x, const float* theta,
                    int64_t count, float* y, float* log_slope);
};

struct SplineRegistration {
  explicit SplineRegistration(const SplineKernel& kernel);
};

// That of ChooseKernel(), or of the best kernel below that has one.
const SplineKernel& ChooseSplineKernel();

// y [rows][size] and, unless it is null, log_det [rows].
void Run(const SplineKernel& kernel, const Spline& spline, const float* x,
         const float* theta, int64_t rows, int64_t size, const Pool& pool,
         float* y, float* log_det);

}  // namespace bitsearch

#endif  // BITSEARCH_MONOTONE_SPLINE_SPLINE_H_
