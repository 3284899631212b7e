// AVX512-VNNI. vpdpbusd adds, in each of 16 lanes, four products of an unsigned
// and a signed byte: the weight code {0, 1, 2} is the unsigned one, so that
// code minus the row sum of q (Eq. 7) needs no offset and cannot saturate.
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "kernel.h"

#define TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define INLINE TARGET __attribute__((always_inline)) inline

namespace bitsearch {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kGroup = 4 * kLanes;
constexpr int64_t kFewRows = 24;    // from here on, unpacking once pays
constexpr int64_t kPanelK = 1280;   // k of an unpacked panel: 80 KB, in L2
constexpr int64_t kFieldK = 65536;  // k that a shifted accumulator holds
constexpr int64_t kBlockRows = 192;
constexpr int kTileRows = 6;  // 6 x 4 accumulators of 32 registers

bool Usable() {
  return __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

int64_t PackedBytes(int64_t n, int64_t k) {
  return PackedLanesBytes(n, k, kLanes);
}

void Pack(const uint8_t* w, int64_t n, int64_t k, uint8_t* packed) {
  PackLanes(w, n, k, kLanes, packed);
}

// The mask of the lanes below `count`.
INLINE __mmask16 Below(int64_t count) {
  return count >= 16 ? 0xffff : static_cast<__mmask16>((1u << count) - 1);
}

TARGET void Quantize(const float* x, int64_t rows, int64_t k, float q_max,
                     const Activations& out) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  const __m512i high = _mm512_set1_epi32(127);
  for (int64_t row = 0; row < rows; ++row, x += k) {
    int8_t* q = out.q + row * out.stride;
    // Magnitudes compare like their bit patterns, with NaN above infinity.
    __m512i largest = _mm512_setzero_si512();
    for (int64_t j = 0; j < k; j += 16) {
      const __m512i bits = _mm512_maskz_loadu_epi32(Below(k - j), x + j);
      largest = _mm512_max_epi32(largest, _mm512_and_si512(bits, magnitude));
    }
    const int32_t bits = _mm512_reduce_max_epi32(largest);
    if (bits >= 0x7f800000) {
      std::memset(q, 0, out.stride);
      out.sum[row] = 0;
      out.step[row] = std::numeric_limits<float>::quiet_NaN();
      continue;
    }
    float gamma;
    std::memcpy(&gamma, &bits, sizeof gamma);
    gamma = std::max(gamma, kGammaFloor);
    const __m512 inverse_step = _mm512_set1_ps(q_max / gamma);
    __m512i sum = _mm512_setzero_si512();
    for (int64_t j = 0; j < k; j += 16) {
      const __m512 v = _mm512_maskz_loadu_ps(Below(k - j), x + j);
      const __m512i rounded = _mm512_min_epi32(
          _mm512_cvtps_epi32(_mm512_mul_ps(v, inverse_step)), high);
      sum = _mm512_add_epi32(sum, rounded);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q + j),
                       _mm512_cvtepi32_epi8(rounded));
    }
    out.sum[row] = _mm512_reduce_add_epi32(sum);
    out.step[row] = gamma / q_max;
  }
}

// The intrinsic makes gcc 12 copy accumulators around in loops that need them
// all in registers.
INLINE void DotAdd(__m512i& acc, __m512i codes, __m512i q) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(codes), "v"(q));
}

INLINE __m512i Quad(const int8_t* q) {
  int32_t quad;
  std::memcpy(&quad, q, sizeof quad);
  return _mm512_set1_epi32(quad);
}

INLINE __m512i Load(const uint8_t* bytes) { return _mm512_load_si512(bytes); }

// Eq. (8) for the 16 outputs from `column` on.
INLINE void Store(__m512i acc, const Layer& layer, float step, int64_t column,
                  float* y_row) {
  const __m512 factor = _mm512_mul_ps(_mm512_set1_ps(step),
                                      _mm512_loadu_ps(layer.scale + column));
  const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), factor);
  const __m512 bias = _mm512_loadu_ps(layer.bias + column);
  if (column < layer.n)
    _mm512_mask_storeu_ps(y_row + column, Below(layer.n - column),
                          _mm512_add_ps(product, bias));
}

// Few rows: the weights are unpacked in registers by one AND a field and no
// shift. A field stays multiplied by 1, 4, 16 or 64, in an accumulator of its
// own, and the accumulators meet at the end. kColumns times 16 outputs.
template <int kRows, int kColumns>
TARGET void FewRows(const Layer& layer, const Activations& x, int64_t row,
                    int64_t column, float* y) {
  const uint8_t* w = layer.weights + column / kGroup * kGroup * x.stride / 4 +
                     column % kGroup * 4;
  const int8_t* q = x.q + row * x.stride;
  __m512i total[kRows][kColumns];
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kColumns; ++c)
      total[r][c] = _mm512_set1_epi32(-x.sum[row + r]);
  for (int64_t begin = 0; begin < x.stride; begin += kFieldK) {
    __m512i acc[kRows][kColumns][4];
    for (auto& of_row : acc)
      for (auto& of_column : of_row)
        for (auto& of_field : of_column) of_field = _mm512_setzero_si512();
    const int64_t end = std::min(begin + kFieldK, x.stride);
    for (int64_t j = begin; j < end; j += 16, w += 4 * 64) {
      for (int f = 0; f < 4; ++f) {
        __m512i quad[kRows];
        for (int r = 0; r < kRows; ++r)
          quad[r] = Quad(q + r * x.stride + j + 4 * f);
        const __m512i field = _mm512_set1_epi8(static_cast<char>(3 << 2 * f));
        for (int c = 0; c < kColumns; ++c) {
          const __m512i codes = _mm512_and_si512(Load(w + 64 * c), field);
          for (int r = 0; r < kRows; ++r) DotAdd(acc[r][c][f], codes, quad[r]);
        }
      }
    }
    for (int r = 0; r < kRows; ++r)
      for (int c = 0; c < kColumns; ++c)
        for (int f = 0; f < 4; ++f)
          total[r][c] = _mm512_add_epi32(
              total[r][c], _mm512_srai_epi32(acc[r][c][f], 2 * f));
  }
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kColumns; ++c)
      Store(total[r][c], layer, x.step[row + r], column + c * kLanes,
            y + (row + r) * layer.n);
}

// One group of outputs for up to kTileRows rows.
template <int kRows, int kColumns>
void FewRowsOfGroup(const Layer& layer, const Activations& x, int64_t row,
                    int64_t group, float* y) {
  for (int64_t c = 0; c < kGroup; c += kColumns * kLanes)
    FewRows<kRows, kColumns>(layer, x, row, group * kGroup + c, y);
}

// Bytes of codes [k / 4][64 outputs][4] from one group's k in [begin, end).
TARGET void Unpack(const uint8_t* w, int64_t k, uint8_t* panel) {
  const __m512i low = _mm512_set1_epi8(3);
  for (int64_t j = 0; j < k; j += 16, panel += 16 * kGroup)
    for (int v = 0; v < 4; ++v, w += 64) {
      const __m512i packed = Load(w);
      uint8_t* out = panel + 64 * v;
      _mm512_store_si512(out, _mm512_and_si512(packed, low));
      _mm512_store_si512(out + 4 * kGroup,
                         _mm512_and_si512(_mm512_srli_epi16(packed, 2), low));
      _mm512_store_si512(out + 8 * kGroup,
                         _mm512_and_si512(_mm512_srli_epi16(packed, 4), low));
      _mm512_store_si512(out + 12 * kGroup,
                         _mm512_and_si512(_mm512_srli_epi16(packed, 6), low));
    }
}

// acc [kRows][64] += the product of a panel and kRows rows. Without the pragmas
// gcc 12 keeps the sums in memory: 85 instead of 200 products a nanosecond.
template <int kRows>
TARGET void Tile(const uint8_t* panel, int64_t k, const int8_t* q,
                 int64_t stride, __m512i* acc) {
  __m512i sum[kRows][4];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < 4; ++v) sum[r][v] = acc[4 * r + v];
  for (int64_t j = 0; j < k; j += 4, panel += 4 * kGroup) {
    __m512i codes[4];
    for (int v = 0; v < 4; ++v) codes[v] = Load(panel + 64 * v);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512i quad = Quad(q + r * stride + j);
      for (int v = 0; v < 4; ++v) DotAdd(sum[r][v], codes[v], quad);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < 4; ++v) acc[4 * r + v] = sum[r][v];
}

constexpr decltype(&FewRowsOfGroup<1, 4>) kFewRowsOfGroup[kTileRows] = {
    FewRowsOfGroup<1, 4>, FewRowsOfGroup<2, 2>, FewRowsOfGroup<3, 2>,
    FewRowsOfGroup<4, 1>, FewRowsOfGroup<5, 1>, FewRowsOfGroup<6, 1>};
constexpr decltype(&Tile<1>) kTile[kTileRows] = {Tile<1>, Tile<2>, Tile<3>,
                                                 Tile<4>, Tile<5>, Tile<6>};

// Many rows: one group's weights are unpacked to bytes once for all of them.
TARGET void ManyRowsOfGroup(const Layer& layer, const Activations& x,
                            Range rows, int64_t group, float* y) {
  alignas(64) uint8_t panel[kPanelK * kGroup];
  __m512i acc[kBlockRows * 4];
  const uint8_t* w = layer.weights + group * kGroup * x.stride / 4;
  const bool one_panel = x.stride <= kPanelK;
  for (int64_t begin = 0; begin < x.stride; begin += kPanelK) {
    const int64_t k = std::min(kPanelK, x.stride - begin);
    Unpack(w + begin * kGroup / 4, k, panel);
    for (int64_t row = rows.begin; row < rows.end; row += kTileRows) {
      const int64_t count = std::min<int64_t>(kTileRows, rows.end - row);
      __m512i* sums = one_panel ? acc : acc + (row - rows.begin) * 4;
      if (begin == 0)
        for (int64_t i = 0; i < 4 * count; ++i)
          sums[i] = _mm512_set1_epi32(-x.sum[row + i / 4]);
      kTile[count - 1](panel, k, x.q + row * x.stride + begin, x.stride, sums);
      if (begin + k == x.stride)
        for (int64_t i = 0; i < 4 * count; ++i)
          Store(sums[i], layer, x.step[row + i / 4],
                group * kGroup + i % 4 * kLanes, y + (row + i / 4) * layer.n);
    }
  }
}

void Multiply(const Layer& layer, const Activations& x, Range rows,
              Range groups, float* y) {
  for (int64_t group = groups.begin; group < groups.end; ++group) {
    if (rows.end - rows.begin > kFewRows) {
      ManyRowsOfGroup(layer, x, rows, group, y);
      continue;
    }
    for (int64_t row = rows.begin; row < rows.end; row += kTileRows) {
      const int64_t count = std::min<int64_t>(kTileRows, rows.end - row);
      kFewRowsOfGroup[count - 1](layer, x, row, group, y);
    }
  }
}

const Registration registration({"avx512vnni", 30, Usable, 16, kGroup,
                                 kBlockRows, PackedBytes, Pack, Quantize,
                                 Multiply});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__x86_64__)
