// The choice of a spline kernel, the bounds rule of events and the split of the
// work over threads.
#include "monotone_spline/spline.h"

#include <algorithm>
#include <cstring>

#include "ternary_matmul/kernel.h"

namespace bitsearch {
namespace {

constexpr int64_t kPart = 256;          // values of one row in one task
constexpr int64_t kSerialValues = 512;  // that one thread does, about 10 us

std::vector<SplineKernel>& Table() {
  static std::vector<SplineKernel> table;
  return table;
}

bool Inside(const float* x, int64_t size, float bound) {
  bool inside = true;
  for (int64_t i = 0; i < size; ++i) inside &= x[i] >= -bound && x[i] <= bound;
  return inside;
}

// Eq. (27) within one part.
double Sum(const float* values, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += values[i];
  return sum;
}

}  // namespace

SplineRegistration::SplineRegistration(const SplineKernel& kernel) {
  Table().push_back(kernel);
}

const SplineKernel& ChooseSplineKernel() {
  for (const Kernel* kernel = &ChooseKernel();; ++kernel)  // "portable" is last
    for (const SplineKernel& spline : Table())
      if (kernel->usable() && !std::strcmp(spline.name, kernel->name))
        return spline;
}

void Run(const SplineKernel& kernel, const Spline& spline, const float* x,
         const float* theta, int64_t rows, int64_t size, const Pool& pool,
         float* y, float* log_det) {
  const int64_t parts = DivideUp(size, kPart);
  std::vector<double> sums(log_det ? rows * parts : 0);
  auto task = [&](int64_t i) {
    const int64_t row = i / parts, part = i % parts * kPart;
    const int64_t begin = row * size + part;
    const int64_t count = std::min(kPart, size - part);
    if (spline.whole_event && !Inside(x + row * size, size, spline.bound)) {
      std::copy_n(x + begin, count, y + begin);
      return;
    }
    float log_slope[kPart];
    kernel.transform(spline, x + begin, theta + begin * spline.parameters(),
                     count, y + begin, log_det ? log_slope : nullptr);
    if (log_det) sums[i] = Sum(log_slope, count);
  };
  if (rows * size < kSerialValues) {
    for (int64_t i = 0; i < rows * parts; ++i) task(i);
  } else {
    pool.run(
        pool.context,
        [](void* data, size_t i) { (*static_cast<decltype(task)*>(data))(i); },
        rows * parts, &task);
  }
  if (!log_det) return;
  for (int64_t row = 0; row < rows; ++row) {
    double sum = 0;
    for (int64_t part = 0; part < parts; ++part)
      sum += sums[row * parts + part];
    log_det[row] = static_cast<float>(sum);
  }
}

}  // namespace bitsearch
