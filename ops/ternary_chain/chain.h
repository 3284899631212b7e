// Layers one after the other on some rows at a time, which stay in the cache.
#ifndef BITSEARCH_TERNARY_CHAIN_CHAIN_H_
#define BITSEARCH_TERNARY_CHAIN_CHAIN_H_

#include "ternary_chain/activation.h"
#include "ternary_matmul/kernel.h"

namespace bitsearch {

struct Link {
  const Kernel* kernel;
  Layer layer;
};

struct Chain {
  const Link* links;  // at least two; what one puts out the next takes
  int64_t count;
  float q_max;
  const ActivationKernel* activation_kernel;
  Activation activation;  // after every layer but the last

  const Link& last() const { return links[count - 1]; }
};

// y [m][n of the last layer] from x [m][k of the first], Eq. (1).
void Run(const Chain& chain, const float* x, int64_t m, const Pool& pool,
         float* y);

}  // namespace bitsearch

#endif  // BITSEARCH_TERNARY_CHAIN_CHAIN_H_
