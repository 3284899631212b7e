// Holds every kernel of the table to the portable one, bit for bit, on random
// shapes, bytes, values, alignments and threads. Usage: fuzz_kernels SECONDS
// [SEED]
#include <algorithm>
#include <array>
#include <chrono>
#include <string>

#include "emulate_avxvnni.h"
#include "fuzz.h"

namespace {

using namespace bitsearch;

// Sizes near the widths and blocks of the kernels, or anywhere.
int64_t Size(Random& random, int64_t most) {
  constexpr int64_t kEdges[] = {1,  4,   8,   9,   16,  24,  32,  64,
                                96, 128, 192, 258, 256, 288, 516, 1280};
  const int64_t size = Pick(random, 0, 2)
                           ? kEdges[Pick(random, 0, 15)] + Pick(random, -1, 3)
                           : Pick(random, 1, most);
  return std::min(std::max(size, int64_t{1}), most);
}

struct Case {
  int64_t m, k, n;
  float q_max;
  Buffer<uint8_t> w;
  Buffer<float> x, scale, bias;

  explicit Case(Random& random)
      : m(Size(random, Pick(random, 0, 9) ? 50 : 300)),
        k(Size(random, Pick(random, 0, 9) ? 300 : 3000)),
        n(Size(random, Pick(random, 0, 9) ? 200 : 2500)),
        q_max(std::array{1.f, 7.f, 127.f, 128.f}[Pick(random, 0, 3)]),
        w(n * DivideUp(k, 4)),
        x(m * k),
        scale(n),
        bias(n) {
    const bool extreme = Pick(random, 0, 4) == 0;
    for (int64_t i = 0; i < n * DivideUp(k, 4); ++i) {
      w.data[i] = extreme ? 0xaa : 0;
      for (int f = 0; !extreme && f < 4; ++f)
        w.data[i] |= static_cast<uint8_t>(Pick(random, 0, 2) << 2 * f);
    }
    for (int64_t i = 0; i < m * k; ++i)
      x.data[i] = extreme ? (i / k % 2 ? -1 : 1) : Value(random);
    for (int64_t i = 0; i < n; ++i) {
      scale.data[i] = std::normal_distribution<float>()(random);
      bias.data[i] = Value(random);
    }
  }

  Buffer<float> Multiply(const Kernel& kernel) const {
    const Weights packed(kernel, w.data, n, k);
    const auto padded_scale = PerOutput(kernel, scale.data, n, n);
    const auto padded_bias = PerOutput(kernel, bias.data, n, n);
    Buffer<float> y(m * n);
    Run(kernel, {n, k, packed.data(), padded_scale.data(), padded_bias.data()},
        x.data, m, q_max, {nullptr, RunTasks}, y.data);
    return y;
  }
};

bool CanRun(const Kernel& kernel) {
  return kernel.usable() ||
         (!std::strcmp(kernel.name, "avxvnni") && EmulateAvxVnni());
}

// Cases until the time is over; the number of them, or exits.
int Fuzz(uint64_t seed, double seconds) {
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  int cases = 0;
  for (; std::chrono::steady_clock::now() < end; ++cases) {
    Random random(seed + cases);
    const Case given(random);
    const auto expected = given.Multiply(Kernels().back());
    for (const Kernel& kernel : Kernels()) {
      // Emulation costs a microsecond a product of 32.
      const bool slow = !kernel.usable();
      if (!CanRun(kernel) || (slow && given.m * given.k * given.n > 1 << 20))
        continue;
      const auto y = given.Multiply(kernel);
      for (int64_t i = 0; i < given.m * given.n; ++i)
        if (!Same(y.data[i], expected.data[i])) {
          std::printf("%s, seed %llu: found %.9g at %lld, expected %.9g\n",
                      kernel.name,
                      static_cast<unsigned long long>(seed + cases), y.data[i],
                      static_cast<long long>(i), expected.data[i]);
          std::exit(1);
        }
    }
  }
  return cases;
}

}  // namespace

int main(int count, char** arguments) {
  std::string ran;
  for (const Kernel& kernel : Kernels())
    if (CanRun(kernel))
      ran += std::string(" ") + kernel.name +
             (kernel.usable() ? "" : "(emulated)");
  const int cases = FuzzInTwoThreads(count, arguments, Fuzz);
  std::printf("%d cases, no difference:%s\n", cases, ran.c_str());
}
