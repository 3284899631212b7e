// Kernels without onnxruntime, for kernels.py: one thread, in its own processor
// time.
#include <time.h>

#include <cstring>

#include "ternary_matmul/linear.h"  // of the tree that is timed

using namespace bitsearch;

struct Prepared {
  const Kernel* kernel;
  int64_t m;
  Weights weights;
  std::vector<float> scale;
  std::vector<float> bias;
  Layer layer;
};

double Microseconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * 1e6 + now.tv_nsec * 1e-3;
}

#define EXPORT extern "C" __attribute__((visibility("default")))

// Null if this processor cannot run a kernel of that name.
EXPORT Prepared* Prepare(const char* name, int64_t m, int64_t k, int64_t n,
                         const uint8_t* w) {
  const float one = 1, zero = 0;
  for (const Kernel& kernel : Kernels()) {
    if (std::strcmp(kernel.name, name) || !kernel.usable()) continue;
    auto* made = new Prepared{&kernel,
                              m,
                              Weights(kernel, w, n, k),
                              PerOutput(kernel, &one, 1, n),
                              PerOutput(kernel, &zero, 1, n),
                              {}};
    made->layer = {n, k, made->weights.data(), made->scale.data(),
                   made->bias.data()};
    return made;
  }
  return nullptr;
}

// Microseconds of one of `repeats` runs.
EXPORT double Time(const Prepared* made, const float* x, float* y,
                   int64_t repeats) {
  const Pool here{nullptr, [](void*, void (*body)(void*, size_t), size_t total,
                              void* data) {
                    for (size_t i = 0; i < total; ++i) body(data, i);
                  }};
  const double begin = Microseconds();
  for (int64_t i = 0; i < repeats; ++i)
    Run(*made->kernel, made->layer, x, made->m, 127, here, y);
  return (Microseconds() - begin) / repeats;
}
