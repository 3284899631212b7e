// Vectors of floats and their elementary functions, Eqs. (9) to (13), in the
// compiler's vector extension, so that every instruction set runs the same
// operations in the same order. Included once by each kernel_<isa>.cc, which
// says how wide a vector is and for which processor functions are compiled.
#if !defined(SPLINE_LANES) || !defined(SPLINE_TARGET)
#error "kernel_<isa>.cc defines SPLINE_LANES and SPLINE_TARGET first"
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#define SPLINE_INLINE SPLINE_TARGET __attribute__((always_inline)) inline

namespace bitsearch {
namespace {

constexpr int kLanes = SPLINE_LANES;
using Float = float __attribute__((vector_size(4 * kLanes)));
using Int = int32_t __attribute__((vector_size(4 * kLanes)));
using Bits = uint32_t __attribute__((vector_size(4 * kLanes)));  // may wrap

constexpr float kLog2E = 1.44269504f;
constexpr float kLn2High = 0.693145752f;  // 15 bits: n * kLn2High is exact
constexpr float kLn2Low = 1.42860677e-6f;
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: its sums are integers
constexpr float kExpFloor = -87.0f;
constexpr uint32_t kSqrtHalfBits = 0x3f3504f3;

// x - 0 is x for every x; x + 0 is not.
SPLINE_INLINE Float Splat(float value) { return value - Float{}; }
SPLINE_INLINE Float Min(Float a, Float b) { return a < b ? a : b; }
SPLINE_INLINE Float Max(Float a, Float b) { return a > b ? a : b; }

SPLINE_INLINE Float Sqrt(Float x) {
  for (int lane = 0; lane < kLanes; ++lane) x[lane] = std::sqrt(x[lane]);
  return x;
}

// Eq. (9), for x <= 0.
SPLINE_INLINE Float Exp(Float x) {
  x = Max(x, Splat(kExpFloor));
  const Float shifted = x * kLog2E + kRound;
  const Float n = shifted - kRound;
  const Float r = (x - n * kLn2High) - n * kLn2Low;
  Float p = r * 1.3951719738543034e-3f + 8.369598537683487e-3f;
  p = p * r + 4.16661873459816e-2f;
  p = p * r + 0.16666512191295624f;
  p = p * r + 0.5f;
  p = (p * (r * r) + r) + 1.0f;
  // The low bits of `shifted` are those of n: they go to the exponent.
  return reinterpret_cast<Float>(reinterpret_cast<Bits>(p) +
                                 (reinterpret_cast<Bits>(shifted) << 23));
}

// Eq. (10), for normal x.
SPLINE_INLINE Float Log(Float x) {
  const Bits bits = reinterpret_cast<Bits>(x);
  const Int exponent = reinterpret_cast<Int>(bits - kSqrtHalfBits) >> 23;
  const Float mantissa =
      reinterpret_cast<Float>(bits - (reinterpret_cast<Bits>(exponent) << 23));
  const Float n = __builtin_convertvector(exponent, Float);
  const Float s = (mantissa - 1.0f) / (mantissa + 1.0f);
  const Float z = s * s;
  Float p = z * 0.29879167675971985f + 0.39977285265922546f;
  p = p * z + 0.6666677594184875f;
  return n * kLn2High + (s * 2.0f + ((s * z) * p + n * kLn2Low));
}

// Eq. (11): log(1 + t) for t in [0, 1].
SPLINE_INLINE Float Log1p(Float t) {
  const Float s = t / (t + 2.0f);
  const Float z = s * s;
  Float p = z * 0.28031274676322937f + 0.2799786329269409f;
  p = p * z + 0.4002177119255066f;
  p = p * z + 0.6666641235351562f;
  return s * 2.0f + (s * z) * p;
}

// Eq. (12).
SPLINE_INLINE Float Softplus(Float x) {
  return Max(x, Float{}) + Log1p(Exp(Min(x, -x)));
}

// Eq. (13).
SPLINE_INLINE Float Sigmoid(Float x) {
  const Float e = Exp(Min(x, -x));
  return (x < 0.0f ? e : Splat(1)) / (e + 1.0f);
}

// Columns [parameters][kLanes] from theta [kLanes][parameters], in squares of
// 4 x 4: one load a number would make 16 ns a value 22.
SPLINE_INLINE void Transpose(const float* theta, int parameters,
                             Float* columns) {
  using Quad = float __attribute__((vector_size(16)));
  for (int begin = 0; begin < parameters; begin += 4) {
    const int column = std::min(begin, parameters - 4);
    for (int lane = 0; lane < kLanes; lane += 4) {
      Quad row[4];
      for (int i = 0; i < 4; ++i)
        __builtin_memcpy(&row[i], theta + (lane + i) * parameters + column, 16);
      const Quad a = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
      const Quad b = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
      const Quad c = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
      const Quad d = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
      const Quad out[4] = {__builtin_shufflevector(a, b, 0, 1, 4, 5),
                           __builtin_shufflevector(a, b, 2, 3, 6, 7),
                           __builtin_shufflevector(c, d, 0, 1, 4, 5),
                           __builtin_shufflevector(c, d, 2, 3, 6, 7)};
      for (int i = 0; i < 4; ++i)
        __builtin_memcpy(reinterpret_cast<float*>(columns + column + i) + lane,
                         &out[i], 16);
    }
  }
}

}  // namespace
}  // namespace bitsearch
