// Layers one after the other on some rows at a time, which stay in the cache.
#ifndef BITSEARCH_TERNARY_CHAIN_CHAIN_H_
#define BITSEARCH_TERNARY_CHAIN_CHAIN_H_

#include "reproducible/kernel.h"
#include "ternary_chain/activation.h"
#include "ternary_matmul/kernel.h"

namespace bitsearch {

struct Link {
  const Kernel* kernel;
  Layer layer;
  const float* gain;   // of the normalisation behind, Eq. (7); null for none
  const float* shift;  // [layer.n], as gain
};

struct Chain {
  const Link* links;  // at least two; what one puts out the next takes
  int64_t count;
  float q_max;
  const ActivationKernel* activation_kernel;
  Activation activation;  // after every layer but the last
  const ReproducibleKernel* normal_kernel;
  float epsilon;

  const Link& last() const { return links[count - 1]; }
};

// y [m][n of the last layer] from x [m][k of the first], Eqs. (1) and (7).
void Run(const Chain& chain, const float* x, int64_t m, const Pool& pool,
         float* y);

}  // namespace bitsearch

#endif  // BITSEARCH_TERNARY_CHAIN_CHAIN_H_
