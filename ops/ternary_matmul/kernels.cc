// The table of kernels: what is compiled in, what runs here, what is chosen.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "ternary_matmul/kernel.h"

namespace bitsearch {
namespace {

std::vector<Kernel>& Table() {
  static std::vector<Kernel> table;
  return table;
}

}  // namespace

Registration::Registration(const Kernel& kernel) {
  auto& table = Table();
  auto worse = [&](const Kernel& other) { return other.rank < kernel.rank; };
  table.insert(std::find_if(table.begin(), table.end(), worse), kernel);
}

const std::vector<Kernel>& Kernels() { return Table(); }

const Kernel& ChooseKernel() {
  const char* forced = std::getenv("BITSEARCH_KERNEL");
  std::string usable;
  for (const Kernel& kernel : Kernels()) {
    if (!kernel.usable()) continue;
    if (!forced || !*forced || !std::strcmp(forced, kernel.name)) return kernel;
    usable += (usable.empty() ? "" : ", ") + std::string(kernel.name);
  }
  throw std::runtime_error(
      "BITSEARCH_KERNEL: found '" + std::string(forced) +
      "', expected one that this processor can run: " + usable);
}

const Kernel& ChooseKernel(int64_t n, int64_t k) {
  const Kernel* best = &ChooseKernel();
  if (const char* forced = std::getenv("BITSEARCH_KERNEL"); forced && *forced)
    return *best;
  // "portable", the last one, is usable and suits any layer.
  for (const Kernel* kernel = best;; ++kernel)
    if (kernel->usable() && kernel->suits(n, k)) return *kernel;
}

int64_t PackedLanesBytes(int64_t n, int64_t k, int64_t lanes) {
  return RoundUp(n, 4 * lanes) * RoundUp(k, 16) / 4;
}

void PackLanes(const uint8_t* w, int64_t n, int64_t k, int64_t lanes,
               uint8_t* packed) {
  const int64_t row_bytes = DivideUp(k, 4);
  const int64_t blocks = DivideUp(k, 16);
  std::memset(packed, 0, PackedLanesBytes(n, k, lanes));
  for (int64_t i = 0; i < n; ++i) {
    const int64_t vector = i / lanes;
    for (int64_t j = 0; j < k; ++j) {
      const int64_t block = vector / 4 * blocks + j / 16;
      const int64_t word = (block * 4 + vector % 4) * lanes + i % lanes;
      packed[word * 4 + j % 4] |= Code(w + i * row_bytes, j)
                                  << (2 * (j / 4 % 4));
    }
  }
}

}  // namespace bitsearch
