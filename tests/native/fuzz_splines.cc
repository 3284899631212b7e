// Holds the spline kernel of every usable instruction set to the portable one,
// bit for bit, on random settings, shapes, values, alignments and threads.
// Usage: fuzz_splines SECONDS [SEED]
#include <algorithm>
#include <array>
#include <chrono>
#include <string>
#include <vector>

#include "fuzz.h"
#include "monotone_spline/spline.h"

namespace {

using namespace bitsearch;

// What BITSEARCH_KERNEL chooses for each usable kernel, "portable" last.
std::vector<const SplineKernel*> SplineKernels() {
  std::vector<const SplineKernel*> found;
  for (const Kernel& kernel : Kernels()) {
    if (!kernel.usable()) continue;
    setenv("BITSEARCH_KERNEL", kernel.name, 1);
    const SplineKernel* spline = &ChooseSplineKernel();
    if (found.empty() || found.back() != spline) found.push_back(spline);
  }
  unsetenv("BITSEARCH_KERNEL");
  return found;
}

struct Result {
  Buffer<float> y, log_det;
};

struct Case {
  Spline spline;
  int64_t rows, size;
  Buffer<float> x, theta;

  explicit Case(Random& random)
      : spline{Pick(random, 0, 1) == 1,
               static_cast<int>(Pick(random, 0, 4)
                                    ? Pick(random, kMinBins, 12)
                                    : Pick(random, kMinBins, kMaxBins)),
               std::array{1e-3f, 1.f, 18.f, kMaxBound}[Pick(random, 0, 3)],
               Pick(random, 0, 1) == 1, Pick(random, 0, 1) == 1},
        rows(Pick(random, 0, 12)),
        size(Pick(random, 1, Pick(random, 0, 9) ? 40 : 700)),
        x(rows * size),
        theta(rows * size * spline.parameters()) {
    const float spread = std::array{0.1f, 1.f, 30.f, 1e30f}[Pick(random, 0, 3)];
    for (int64_t i = 0; i < rows * size; ++i)
      x.data[i] =
          Pick(random, 0, 50)
              ? Value(random) * spline.bound / 2
              : std::array{-1.f, 0.f, 1.f}[Pick(random, 0, 2)] * spline.bound;
    for (int64_t i = 0; i < rows * size * spline.parameters(); ++i)
      theta.data[i] = Value(random) * spread;
  }

  Result Transform(const SplineKernel& kernel) const {
    Result result{Buffer<float>(rows * size), Buffer<float>(rows)};
    Run(kernel, spline, x.data, theta.data, rows, size, {nullptr, RunTasks},
        result.y.data, result.log_det.data);
    return result;
  }
};

void Compare(const char* name, const char* what, uint64_t seed, int64_t count,
             const Buffer<float>& found, const Buffer<float>& expected) {
  for (int64_t i = 0; i < count; ++i)
    if (!Same(found.data[i], expected.data[i])) {
      std::printf("%s, %s, seed %llu: found %.9g at %lld, expected %.9g\n",
                  name, what, static_cast<unsigned long long>(seed),
                  found.data[i], static_cast<long long>(i), expected.data[i]);
      std::exit(1);
    }
}

// Cases until the time is over; the number of them, or exits.
int Fuzz(const std::vector<const SplineKernel*>& kernels, uint64_t seed,
         double seconds) {
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  int cases = 0;
  for (; std::chrono::steady_clock::now() < end; ++cases) {
    Random random(seed + cases);
    const Case given(random);
    const Result expected = given.Transform(*kernels.back());
    for (const SplineKernel* kernel : kernels) {
      const Result result = given.Transform(*kernel);
      Compare(kernel->name, "y", seed + cases, given.rows * given.size,
              result.y, expected.y);
      Compare(kernel->name, "log_det", seed + cases, given.rows, result.log_det,
              expected.log_det);
    }
  }
  return cases;
}

}  // namespace

int main(int count, char** arguments) {
  const auto kernels = SplineKernels();
  const int cases =
      FuzzInTwoThreads(count, arguments, [&](uint64_t seed, double seconds) {
        return Fuzz(kernels, seed, seconds);
      });
  std::string ran;
  for (const SplineKernel* kernel : kernels)
    ran += std::string(" ") + kernel->name;
  std::printf("%d cases of splines, no difference:%s\n", cases, ran.c_str());
}
