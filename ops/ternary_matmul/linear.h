// One layer at work: packing, scratch memory and the split over threads.
#ifndef BITSEARCH_TERNARY_MATMUL_LINEAR_H_
#define BITSEARCH_TERNARY_MATMUL_LINEAR_H_

#include "ternary_matmul/kernel.h"

namespace bitsearch {

// Throws std::invalid_argument at a code 3 of the input `name`.
void CheckCodes(const uint8_t* w, int64_t n, int64_t k,
                const std::string& name);

class Weights {
 public:
  Weights() = default;
  Weights(const Kernel& kernel, const uint8_t* w, int64_t n, int64_t k);
  const uint8_t* data() const { return aligned_; }

 private:
  std::vector<uint8_t> bytes_;
  const uint8_t* aligned_ = nullptr;
};

// `count` values, 1 or n, as the n rounded up to a group that kernels read.
std::vector<float> PerOutput(const Kernel& kernel, const float* values,
                             int64_t count, int64_t n);

// y [m][n] from x [m][k].
void Run(const Kernel& kernel, const Layer& layer, const float* x, int64_t m,
         float q_max, const Pool& pool, float* y);

}  // namespace bitsearch

#endif  // BITSEARCH_TERNARY_MATMUL_LINEAR_H_
