// Elementary functions, Eqs. (41) to (52), in the compiler's vector extension.
// Included once by each kernel_<isa>.cc, which defines Fma(Float, Float, Float)
// behind MonotoneSpline's math-inl.h.
namespace bitsearch {
namespace {

using Double = double __attribute__((vector_size(4 * kLanes)));  // half as many
using Long = int64_t __attribute__((vector_size(4 * kLanes)));
using Half = float __attribute__((vector_size(2 * kLanes)));

constexpr int32_t kRoundBits = 0x4b400000;  // of kRound

SPLINE_INLINE Float Abs(Float x) {
  return reinterpret_cast<Float>(reinterpret_cast<Int>(x) & 0x7fffffff);
}
// |size| with the sign of x.
SPLINE_INLINE Float WithSign(Float size, Float x) {
  return reinterpret_cast<Float>(
      (reinterpret_cast<Int>(size) & 0x7fffffff) |
      (reinterpret_cast<Int>(x) & static_cast<int32_t>(0x80000000)));
}
SPLINE_INLINE Float TwoTo(Int power) {
  return reinterpret_cast<Float>(reinterpret_cast<Bits>(power + 127) << 23);
}

template <int kCount>
SPLINE_INLINE Float Horner(const float (&coefficients)[kCount], Float x) {
  Float p = Splat(coefficients[0]);
  for (int i = 1; i < kCount; ++i) p = Fma(p, x, Splat(coefficients[i]));
  return p;
}

// Eq. (41).
SPLINE_INLINE Float ExpAny(Float x) {
  constexpr float kPolynomial[] = {1.3951719738543034e-3f,
                                   8.369598537683487e-3f, 4.16661873459816e-2f,
                                   0.16666512191295624f, 0.5f};
  x = x < -104.0f ? Splat(-104) : x;
  x = x > 89.0f ? Splat(89) : x;
  const Float shifted = x * kLog2E + kRound;
  const Float n = shifted - kRound;
  const Float r = Fma(n, Splat(-kLn2Low), Fma(n, Splat(-kLn2High), x));
  const Float p = Fma(Horner(kPolynomial, r), r * r, r) + 1.0f;
  const Int power =
      reinterpret_cast<Int>(reinterpret_cast<Bits>(shifted) - kRoundBits);
  const Int half = power >> 1;
  return (p * TwoTo(half)) * TwoTo(power - half);
}

// Eq. (42).
SPLINE_INLINE Float SigmoidAny(Float x) {
  const Float e = ExpAny(x < 0.0f ? x : -x);
  return (x < 0.0f ? e : Splat(1)) / (e + 1.0f);
}

// Eq. (43).
SPLINE_INLINE Float Tanh(Float x) {
  constexpr float kPolynomial[] = {-0.005704986862838268f, 0.02063908614218235f,
                                   -0.05373971536755562f, 0.13331441581249237f,
                                   -0.3333328068256378f};
  const Float a = Abs(x), z = x * x, e = ExpAny(a * -2.0f);
  const Float small = Fma(x * z, Horner(kPolynomial, z), x);
  return a < 0.625f ? small : WithSign((1.0f - e) / (e + 1.0f), x);
}

// Eq. (44).
SPLINE_INLINE Float Erf(Float x) {
  constexpr float kPolynomial[] = {
      8.2674618170131e-05f,  -0.0008118075202219188f, 0.005198829807341099f,
      -0.02685849741101265f, 0.1128367930650711f,     -0.37612631916999817f,
      0.12837916612625122f};
  constexpr float kTail[] = {1.2150419024692383e-05f, -0.0003319874231237918f,
                             0.0036797281354665756f,  -0.023840725421905518f,
                             0.10632801055908203f,    0.6350963115692139f,
                             1.1286619901657104f};
  const Float a = Abs(x), z = x * x, b = a > 4.0f ? Splat(4) : a;
  const Float tail = WithSign(1.0f - ExpAny(-(b * Horner(kTail, b))), x);
  return a < 0.9375f ? Fma(x, Horner(kPolynomial, z), x) : tail;
}

// Eq. (45).
SPLINE_INLINE Float Gelu(Float x) {
  constexpr float kSqrtHalf = 0.70710678118654752f;
  return (x * 0.5f) * (Erf(x * kSqrtHalf) + 1.0f);
}

// Eq. (46).
SPLINE_INLINE Float GeluTanh(Float x) {
  constexpr double kTwice = 1.5957691216057308;  // 2 sqrt(2 / pi)
  constexpr float kLinear = static_cast<float>(kTwice);
  constexpr float kCubic = static_cast<float>(kTwice * 0.044715);
  return x * SigmoidAny(x * Fma(x * x, Splat(kCubic), Splat(kLinear)));
}

constexpr double kBig = 6755399441055744.0;  // 1.5 * 2^52
constexpr int64_t kBigBits = 0x4338000000000000;
constexpr int64_t kSignBit = INT64_MIN;

SPLINE_INLINE Double Splat64(double value) { return value - Double{}; }
SPLINE_INLINE Long BitsOf(Double x) { return reinterpret_cast<Long>(x); }
SPLINE_INLINE Double FromBits(Long x) { return reinterpret_cast<Double>(x); }
SPLINE_INLINE Double Abs(Double x) { return FromBits(BitsOf(x) & ~kSignBit); }
SPLINE_INLINE Double WithSign(Double size, Double x) {
  return FromBits((BitsOf(size) & ~kSignBit) | (BitsOf(x) & kSignBit));
}

template <int kCount>
SPLINE_INLINE Double Series(const double (&coefficients)[kCount], Double x) {
  Double p = Splat64(coefficients[0]);
  for (int i = 1; i < kCount; ++i) p = p * x + coefficients[i];
  return p;
}

// Eq. (47). Exponents become floats as the low bits of a large one.
SPLINE_INLINE Double Log64(Double x) {
  constexpr double kSeries[] = {2.0 / 15, 2.0 / 13, 2.0 / 11, 2.0 / 9,
                                2.0 / 7,  2.0 / 5,  2.0 / 3};
  using Wrapping = uint64_t __attribute__((vector_size(4 * kLanes)));
  const Long shifted = reinterpret_cast<Long>(
      reinterpret_cast<Wrapping>(BitsOf(x)) - 0x3fe6a09e667f3bcd);
  const Long exponent = shifted >> 52;
  const Double mantissa = FromBits(
      reinterpret_cast<Long>(reinterpret_cast<Wrapping>(BitsOf(x)) -
                             (reinterpret_cast<Wrapping>(exponent) << 52)));
  const Double n = FromBits(exponent + kBigBits) - kBig;
  const Double s = (mantissa - 1.0) / (mantissa + 1.0);
  const Double z = s * s;
  Double y = n * 0.6931471805599453 + (s * 2.0 + (s * z) * Series(kSeries, z));
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  y = x == kInfinity ? x : y;
  y = x < 0.0 ? Splat64(std::numeric_limits<double>::quiet_NaN()) : y;
  y = x == 0.0 ? Splat64(-kInfinity) : y;
  return x != x ? x : y;
}

// Eq. (48).
SPLINE_INLINE Double Exp64(Double x) {
  constexpr double kSeries[] = {1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880,
                                1.0 / 40320,    1.0 / 5040,    1.0 / 720,
                                1.0 / 120,      1.0 / 24,      1.0 / 6,
                                1.0 / 2,        1.0,           1.0};
  x = x < -700.0 ? Splat64(-700) : x;
  x = x > 700.0 ? Splat64(700) : x;
  const Double shifted = x * 1.4426950408889634 + kBig;
  const Double n = shifted - kBig;
  const Double r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10;
  using Wrapping = uint64_t __attribute__((vector_size(4 * kLanes)));
  const auto power = reinterpret_cast<Wrapping>(BitsOf(shifted)) - kBigBits;
  return Series(kSeries, r) * reinterpret_cast<Double>((power + 1023) << 52);
}

// Eq. (49): the sine of x and some quarters of a turn.
template <int kQuarters>
SPLINE_INLINE Double Turned(Double x) {
  constexpr double kSine[] = {1.0 / 6227020800, -1.0 / 39916800, 1.0 / 362880,
                              -1.0 / 5040,      1.0 / 120,       -1.0 / 6};
  constexpr double kCosine[] = {
      -1.0 / 87178291200, 1.0 / 479001600, -1.0 / 3628800, 1.0 / 40320,
      -1.0 / 720,         1.0 / 24,        -1.0 / 2};
  const Double shifted = x * 0.6366197723675814 + kBig;
  const Double n = shifted - kBig;
  Double r = (x - n * 1.5707963267341256) - n * 6.077100506506192e-11;
  r = r > 1.0 ? Splat64(1) : r < -1.0 ? Splat64(-1) : r;
  const Double z = r * r;
  const Double sine = r + (r * z) * Series(kSine, z);
  const Double cosine = 1.0 + z * Series(kCosine, z);
  const Long quadrant = BitsOf(shifted) + kQuarters;
  const Double y = (quadrant & 1) == 1 ? cosine : sine;
  return (quadrant & 2) == 2 ? -y : y;
}

// Eq. (50).
SPLINE_INLINE Double Sinh64(Double x) {
  const Double a = Abs(x), z = a * a, e = Exp64(a);
  const Double small = a + (a * z) * (z * (1.0 / 120) + 1.0 / 6);
  return WithSign(a < 0.01 ? small : (e - 1.0 / e) * 0.5, x);
}
SPLINE_INLINE Double Cosh64(Double x) {
  const Double e = Exp64(Abs(x));
  return (e + 1.0 / e) * 0.5;
}

// Eq. (51).
SPLINE_INLINE Double Asinh64(Double x) {
  const Double a = Abs(x), z = a * a;
  const Double small = a + (a * z) * (z * 0.075 - 1.0 / 6);
  Double root = z + 1.0;
  for (int lane = 0; lane < kLanes / 2; ++lane)
    root[lane] = std::sqrt(root[lane]);
  return WithSign(a < 0.01 ? small : Log64(a + root), x);
}

// Eq. (52).
SPLINE_INLINE Double Atan64(Double x) {
  constexpr double kPi = 3.141592653589793;
  constexpr double kSeries[] = {1.0 / 25, -1.0 / 23, 1.0 / 21, -1.0 / 19,
                                1.0 / 17, -1.0 / 15, 1.0 / 13, -1.0 / 11,
                                1.0 / 9,  -1.0 / 7,  1.0 / 5,  -1.0 / 3};
  const Double a = Abs(x);
  const Double t = a > 1.0 ? 1.0 / a : a;
  const auto folded = t > 0.41421356237309503;
  const Double u = folded ? (t - 1.0) / (t + 1.0) : t;
  const Double z = u * u;
  Double y = u + (u * z) * Series(kSeries, z);
  y = folded ? y + kPi / 4 : y;
  return WithSign(a > 1.0 ? kPi / 2 - y : y, x);
}

// A function in double precision of floats.
template <Double (*kFunction)(Double)>
SPLINE_INLINE Float Rounded(Float x) {
  Half parts[2];
  __builtin_memcpy(parts, &x, sizeof x);
  for (Half& part : parts)
    part = __builtin_convertvector(
        kFunction(__builtin_convertvector(part, Double)), Half);
  __builtin_memcpy(&x, parts, sizeof x);
  return x;
}

}  // namespace
}  // namespace bitsearch
