// AVX-VNNI: vpdpbusd of 256 bits, for processors without AVX-512.
#if defined(__x86_64__)

#define TARGET __attribute__((target("avx2")))
#define INLINE TARGET __attribute__((always_inline)) inline

#include "ternary_matmul/vector256-inl.h"

namespace bitsearch {
namespace {

constexpr int kFewRows = 3;   // 12 sums of 16 registers
constexpr int kTileRows = 6;  // likewise
constexpr int kTileVectors = 2;

// In assembly as in kernel_avx512vnni.cc, and to have this encoding of the two
// that there are of 256 bits.
INLINE void DotAdd(Ints& acc, Ints codes, Ints q) {
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(codes), "x"(q));
}
INLINE Ints Field(Ints w, int f) { return And(w, Set8(3 << 2 * f)); }
constexpr int FieldShift(int f) { return 2 * f; }

bool Usable() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("avxvnni");
}

}  // namespace
}  // namespace bitsearch

// After what they are written in.
#include "ternary_matmul/dot-inl.h"
#include "ternary_matmul/quantize-inl.h"

namespace bitsearch {
namespace {

const Registration registration({"avxvnni", 20, Usable, AnyLayer, 16, kGroup,
                                 kBlockRows, 1, PackedBytes, Pack, Quantize,
                                 Multiply});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__x86_64__)
