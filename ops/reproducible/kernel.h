// Float operators with one order of operations: the seam between onnxruntime
// and arithmetic. Equation numbers are those of README.md.
#ifndef BITSEARCH_REPRODUCIBLE_KERNEL_H_
#define BITSEARCH_REPRODUCIBLE_KERNEL_H_

#include <cstdint>
#include <vector>

#include "parallel.h"

namespace bitsearch {

// Functions of one number, in the order of their table in arithmetic-inl.h.
enum class Elementary {
  kAsinh,
  kAtan,
  kCos,
  kCosh,
  kErf,
  kExp,
  kGelu,
  kGeluTanh,
  kLog,
  kSigmoid,
  kSin,
  kSinh,
  kSqrt,
  kTanh
};

// One vector width. A file kernel_<isa>.cc fills one in and registers it.
struct ReproducibleKernel {
  const char* name;  // of the Kernel whose processors run it
  bool (*usable)();
  int64_t columns;  // of a panel of packed weights
  // Eq. (37): the columns of `panels` of y [rows][n] from x [rows][k]. `packed`
  // is what Pack made of [k][n]; bias may be null.
  void (*multiply)(const float* x, int64_t rows, int64_t k, const float* packed,
                   Range panels, int64_t n, const float* bias, float* y);
  // y [outer][inner] from x [outer][size][inner], Eq. (38).
  void (*sum)(const float* x, int64_t outer, int64_t size, int64_t inner,
              float* y);
  void (*softmax)(const float* x, int64_t rows, int64_t size, float* y);
  void (*normalize)(const float* x, int64_t rows, int64_t size,
                    const float* scale, const float* bias, float epsilon,
                    float* y);
  // Eqs. (41) to (53).
  void (*apply)(Elementary function, const float* x, int64_t count, float* y);
};

struct ReproducibleRegistration {
  explicit ReproducibleRegistration(const ReproducibleKernel& kernel);
};

// That of ChooseKernel(), or of the best kernel below that has one.
const ReproducibleKernel& ChooseReproducibleKernel();

// Weights in the layout of a kernel: panels of `columns` outputs, each [k] of
// them, the last one filled up with zeros.
int64_t PackedSize(const ReproducibleKernel& kernel, int64_t k, int64_t n);
// From b [k][n], or [n][k] if `transposed`.
void Pack(const ReproducibleKernel& kernel, const float* b, int64_t k,
          int64_t n, bool transposed, float* packed);

// y [m][n] = x [m][k] times packed weights, plus bias [n] unless it is null.
void Multiply(const ReproducibleKernel& kernel, const float* x, int64_t m,
              int64_t k, const float* packed, int64_t n, const float* bias,
              const Pool& pool, float* y);

// body(begin, end) over parts of `total` items of `work` operations each.
template <class Body>
void ParallelParts(const Pool& pool, int64_t total, int64_t work, Body body) {
  constexpr int64_t kSerialWork = 1 << 17, kParts = 16;
  if (total < 2 || total * work < kSerialWork) {
    if (total) body(int64_t{0}, total);
    return;
  }
  struct Task {
    Body* body;
    int64_t size, total;
  } task{&body, DivideUp(total, kParts), total};
  pool.run(
      pool.context,
      [](void* data, size_t i) {
        const Task& task = *static_cast<Task*>(data);
        const int64_t begin = static_cast<int64_t>(i) * task.size;
        const int64_t end =
            begin + task.size < task.total ? begin + task.size : task.total;
        (*task.body)(begin, end);
      },
      DivideUp(total, task.size), &task);
}

}  // namespace bitsearch

#endif  // BITSEARCH_REPRODUCIBLE_KERNEL_H_
