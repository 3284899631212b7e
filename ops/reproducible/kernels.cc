// The choice of a kernel, packed weights, and the split of products over
// threads.
#include <algorithm>
#include <cstring>

#include "reproducible/kernel.h"
#include "ternary_matmul/kernel.h"

namespace bitsearch {
namespace {

constexpr int64_t kRowBlock = 96;  // a multiple of every kernel's tile

std::vector<ReproducibleKernel>& Table() {
  static std::vector<ReproducibleKernel> table;
  return table;
}

}  // namespace

ReproducibleRegistration::ReproducibleRegistration(
    const ReproducibleKernel& kernel) {
  Table().push_back(kernel);
}

const ReproducibleKernel& ChooseReproducibleKernel() {
  for (const Kernel* kernel = &ChooseKernel();; ++kernel)  // "portable" is last
    for (const ReproducibleKernel& found : Table())
      if (kernel->usable() && !std::strcmp(found.name, kernel->name) &&
          found.usable())
        return found;
}

int64_t PackedSize(const ReproducibleKernel& kernel, int64_t k, int64_t n) {
  return RoundUp(n, kernel.columns) * k;
}

void Pack(const ReproducibleKernel& kernel, const float* b, int64_t k,
          int64_t n, bool transposed, float* packed) {
  const int64_t columns = kernel.columns;
  for (int64_t begin = 0; begin < n; begin += columns, packed += k * columns) {
    const int64_t live = std::min(columns, n - begin);
    for (int64_t i = 0; i < k; ++i) {
      float* out = packed + i * columns;
      if (transposed)
        for (int64_t j = 0; j < live; ++j) out[j] = b[(begin + j) * k + i];
      else
        std::copy_n(b + i * n + begin, live, out);
      std::fill_n(out + live, columns - live, 0.0f);
    }
  }
}

void Multiply(const ReproducibleKernel& kernel, const float* x, int64_t m,
              int64_t k, const float* packed, int64_t n, const float* bias,
              const Pool& pool, float* y) {
  // Blocks of rows share the panels; few rows share them among threads.
  const int64_t blocks = DivideUp(m, kRowBlock);
  const int64_t panels = DivideUp(n, kernel.columns);
  const int64_t parts = std::max<int64_t>(
      std::min<int64_t>(16 / std::max<int64_t>(blocks, 1), panels / 4), 1);
  const int64_t size = DivideUp(panels, parts);
  const int64_t work = std::min(m, kRowBlock) * k * size * kernel.columns;
  ParallelParts(pool, blocks * parts, work, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / parts * kRowBlock, part = i % parts * size;
      if (part >= panels) continue;
      kernel.multiply(x + row * k, std::min(kRowBlock, m - row), k, packed,
                      {part, std::min(part + size, panels)}, n, bias,
                      y + row * n);
    }
  });
}

}  // namespace bitsearch
