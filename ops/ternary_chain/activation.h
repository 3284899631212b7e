// What stands between two layers of a chain. Equation numbers are those of
// README.md.
#ifndef BITSEARCH_TERNARY_CHAIN_ACTIVATION_H_
#define BITSEARCH_TERNARY_CHAIN_ACTIVATION_H_

#include <cstdint>

namespace bitsearch {

enum class Function { kRelu, kLeakyRelu, kSilu, kGelu };

struct Activation {
  Function function;
  float alpha;  // the slope of kLeakyRelu below zero
};

// One vector width. A file kernel_<isa>.cc fills one in and registers it.
struct ActivationKernel {
  const char* name;  // of the Kernel whose processors run it
  // x [count] in place, Eqs. (3) to (6).
  void (*apply)(const Activation& activation, float* x, int64_t count);
};

struct ActivationRegistration {
  explicit ActivationRegistration(const ActivationKernel& kernel);
};

// That of ChooseKernel(), or of the best kernel below that has one.
const ActivationKernel& ChooseActivationKernel();

}  // namespace bitsearch

#endif  // BITSEARCH_TERNARY_CHAIN_ACTIVATION_H_
