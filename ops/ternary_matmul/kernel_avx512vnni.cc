// AVX512-VNNI: vpdpbusd of 512 bits.
#if defined(__x86_64__)

#define TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define INLINE TARGET __attribute__((always_inline)) inline

#include "ternary_matmul/vector512-inl.h"

namespace bitsearch {
namespace {

constexpr int kFewRows = 6;  // 24 sums of 32 registers, each
constexpr int kTileRows = 6;
constexpr int kTileVectors = 4;

// The intrinsic makes gcc 12 copy sums around in loops that need them all in
// registers.
INLINE void DotAdd(Ints& acc, Ints codes, Ints q) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(codes), "v"(q));
}
INLINE Ints Field(Ints w, int f) { return And(w, Set8(3 << 2 * f)); }
constexpr int FieldShift(int f) { return 2 * f; }

bool Usable() {
  return __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

}  // namespace
}  // namespace bitsearch

// After what they are written in.
#include "ternary_matmul/dot-inl.h"
#include "ternary_matmul/quantize-inl.h"

namespace bitsearch {
namespace {

const Registration registration({"avx512vnni", 30, Usable, AnyLayer, 16, kGroup,
                                 kBlockRows, 1, PackedBytes, Pack, Quantize,
                                 Multiply});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__x86_64__)
