// Holds the reproducible kernels of every usable instruction set to the
// portable one, bit for bit: products, sums, softmax, normalisation and
// elementary functions, on random sizes, values, alignments and threads.
// Usage: fuzz_products SECONDS [SEED]
#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "fuzz.h"
#include "reproducible/kernel.h"

namespace {

using namespace bitsearch;

constexpr int kOperators = 4 + static_cast<int>(Elementary::kTanh) + 1;

// What BITSEARCH_KERNEL chooses for each usable kernel, "portable" last.
std::vector<const ReproducibleKernel*> ReproducibleKernels() {
  std::vector<const ReproducibleKernel*> found;
  for (const Kernel& kernel : Kernels()) {
    if (!kernel.usable()) continue;
    setenv("BITSEARCH_KERNEL", kernel.name, 1);
    const ReproducibleKernel* one = &ChooseReproducibleKernel();
    if (found.empty() || found.back() != one) found.push_back(one);
  }
  unsetenv("BITSEARCH_KERNEL");
  return found;
}

Buffer<float> Values(Random& random, int64_t count, float spread) {
  Buffer<float> values(count);
  for (int64_t i = 0; i < count; ++i) values.data[i] = Value(random) * spread;
  return values;
}

// One operator and what it is fed; the meaning of sizes is the operator's.
struct Case {
  int which;
  int64_t m, k, n;
  bool transposed, biased;
  Buffer<float> x, b, c;

  explicit Case(Random& random)
      : which(static_cast<int>(Pick(random, 0, kOperators - 1))),
        m(Pick(random, 0, Pick(random, 0, 9) ? 20 : 300)),
        k(Pick(random, which ? 1 : 0, Pick(random, 0, 9) ? 70 : 600)),
        n(Pick(random, 0, 90)),
        transposed(Pick(random, 0, 1)),
        biased(Pick(random, 0, 1)),
        x(Values(random, m * k * (which == 1 ? n : 1),
                 Pick(random, 0, 1) ? 1.f : 30.f)),
        b(Values(random, which < 1 ? k * n : k, 1.f)),
        c(Values(random, std::max(k, n), 1.f)) {}

  int64_t size() const {
    return which == 0 ? m * n : which == 1 ? m * n : m * k;
  }

  Buffer<float> Run(const ReproducibleKernel& kernel) const {
    Buffer<float> y(size());
    if (which == 0) {
      Buffer<float> packed(PackedSize(kernel, k, n));
      Pack(kernel, b.data, k, n, transposed, packed.data);
      Multiply(kernel, x.data, m, k, packed.data, n, biased ? c.data : nullptr,
               {nullptr, RunTasks}, y.data);
    } else if (which == 1) {
      kernel.sum(x.data, m, k, n, y.data);
    } else if (which == 2) {
      kernel.softmax(x.data, m, k, y.data);
    } else if (which == 3) {
      kernel.normalize(x.data, m, k, b.data, c.data, 1e-5f, y.data);
    } else {
      kernel.apply(static_cast<Elementary>(which - 4), x.data, m * k, y.data);
    }
    return y;
  }
};

// Cases until the time is over; the number of them, or exits.
int Fuzz(const std::vector<const ReproducibleKernel*>& kernels, uint64_t seed,
         double seconds) {
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  int cases = 0;
  for (; std::chrono::steady_clock::now() < end; ++cases) {
    Random random(seed + cases);
    const Case given(random);
    const Buffer<float> expected = given.Run(*kernels.back());
    for (const ReproducibleKernel* kernel : kernels) {
      const Buffer<float> found = given.Run(*kernel);
      for (int64_t i = 0; i < given.size(); ++i)
        if (!Same(found.data[i], expected.data[i])) {
          std::printf(
              "%s, operator %d, seed %llu: found %.9g at %lld, "
              "expected %.9g\n",
              kernel->name, given.which,
              static_cast<unsigned long long>(seed + cases), found.data[i],
              static_cast<long long>(i), expected.data[i]);
          std::exit(1);
        }
    }
  }
  return cases;
}

}  // namespace

int main(int count, char** arguments) {
  const auto kernels = ReproducibleKernels();
  const int cases =
      FuzzInTwoThreads(count, arguments, [&](uint64_t seed, double seconds) {
        return Fuzz(kernels, seed, seconds);
      });
  std::string ran;
  for (const ReproducibleKernel* kernel : kernels)
    ran += std::string(" ") + kernel->name;
  std::printf("%d cases of products and functions, no difference:%s\n", cases,
              ran.c_str());
}
