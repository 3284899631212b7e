// The seam between onnxruntime and arithmetic: raw pointers and sizes only.
// Equation numbers are those of README.md.
#ifndef BITSEARCH_TERNARY_MATMUL_KERNEL_H_
#define BITSEARCH_TERNARY_MATMUL_KERNEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "parallel.h"

namespace bitsearch {

// Quantised rows, Eqs. (3) to (6).
struct Activations {
  int8_t* q;        // [rows][stride], zero from k on; 8 bytes more can be read
  int32_t* sum;     // [rows], sum of q over k
  float* step;      // [rows], gamma / Q, or NaN
  int64_t stride;   // k rounded up to the kernel's k_align
  int32_t largest;  // no |q| is larger
};

// One layer in the layout of one kernel.
struct Layer {
  int64_t n;
  int64_t k;
  const uint8_t* weights;
  const float* scale;  // [n rounded up to n_group]
  const float* bias;   // [n rounded up to n_group]
};

// One instruction set. A file kernel_<isa>.cc fills one in and registers it.
struct Kernel {
  const char* name;
  int rank;  // the usable kernel of highest rank is chosen
  bool (*usable)();
  bool (*suits)(int64_t n, int64_t k);  // layers that it is the fastest for
  int64_t k_align;      // activations are padded to a multiple of this
  int64_t n_group;      // outputs in one unit of work
  int64_t m_block;      // rows in one unit of work
  int64_t task_groups;  // groups below which a task repeats too much work
  int64_t (*packed_bytes)(int64_t n, int64_t k);
  // From the operator's bytes [n][ceil(k/4)] to this kernel's layout.
  void (*pack)(const uint8_t* w, int64_t n, int64_t k, uint8_t* packed);
  void (*quantize)(const float* x, int64_t rows, int64_t k, float q_max,
                   const Activations& out);
  // Rows `rows` of y [m][n] for the outputs of `groups`, Eqs. (7) and (8).
  void (*multiply)(const Layer& layer, const Activations& x, Range rows,
                   Range groups, float* y);
};

struct Registration {
  explicit Registration(const Kernel& kernel);
};

// All kernels compiled in, best first.
const std::vector<Kernel>& Kernels();

// The best usable kernel, or the one that BITSEARCH_KERNEL names.
// Throws std::runtime_error that lists the usable ones.
const Kernel& ChooseKernel();

// The best usable kernel that suits the layer, or the one that is forced.
const Kernel& ChooseKernel(int64_t n, int64_t k);

inline bool AnyLayer(int64_t, int64_t) { return true; }

constexpr float kGammaFloor = 1e-8f;

// Weight code {0, 1, 2} of one output's row of bytes, Eq. (2).
inline int Code(const uint8_t* row, int64_t k) {
  return (row[k / 4] >> (2 * (k % 4))) & 3;
}

// The layout of vector kernels whose 32-bit lanes are outputs: groups of
// 4 * lanes outputs; inside, for each 16 k, four vectors of `lanes` words. Byte
// b and 2-bit field f of a word belong to k = 16 * block + 4 * f + b.
int64_t PackedLanesBytes(int64_t n, int64_t k, int64_t lanes);
void PackLanes(const uint8_t* w, int64_t n, int64_t k, int64_t lanes,
               uint8_t* packed);

}  // namespace bitsearch

#endif  // BITSEARCH_TERNARY_MATMUL_KERNEL_H_
