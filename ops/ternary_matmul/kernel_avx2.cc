// AVX2 without a dot-product instruction. Few rows: vpmaddubsw and sums of 16
// bits. Many rows: tables.
#if defined(__x86_64__)

#define TARGET __attribute__((target("avx2")))
#define INLINE TARGET __attribute__((always_inline)) inline

#include "ternary_matmul/vector256-inl.h"

namespace bitsearch {
namespace {

constexpr int64_t kGroup = 4 * kLanes;

}  // namespace
}  // namespace bitsearch

// After what they are written in.
#include "ternary_matmul/quantize-inl.h"
#include "ternary_matmul/table-inl.h"

namespace bitsearch {
namespace {

constexpr int kTileRows = 4;
// k whose sums fit 16 bits. Two fields an accumulator, each four times in
// every 16 k, one of them times 4 : 8 * 2 * 2 * 2 * 4 * 127 = 32512.
constexpr int64_t kExactK = 128;

bool Usable() { return __builtin_cpu_supports("avx2"); }

INLINE Ints Quad(const int8_t* q) {
  int32_t quad;
  std::memcpy(&quad, q, sizeof quad);
  return Set32(quad);
}

// One AND a field; two fields stay multiplied by 4, in sums of their own.
template <int kRows, int kColumns>
TARGET void FewRows(const Layer& layer, const Activations& x, int64_t row,
                    int64_t column, float* y) {
  const uint8_t* w = layer.weights + column / kGroup * kGroup * x.stride / 4 +
                     column % kGroup * 4;
  const int8_t* q = x.q + row * x.stride;
  const Ints one = Set8(3), four = Set8(12);
  Ints total[kRows][kColumns];
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kColumns; ++c) total[r][c] = Set32(-x.sum[row + r]);
  for (int64_t begin = 0; begin < x.stride; begin += kExactK) {
    Ints ones[kRows][kColumns], fours[kRows][kColumns];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
      for (int c = 0; c < kColumns; ++c) ones[r][c] = fours[r][c] = Zero();
    const int64_t end = std::min(begin + kExactK, x.stride);
    for (int64_t j = begin; j < end; j += 16, w += 4 * sizeof(Ints)) {
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) {
        const Ints low = Load(w + c * sizeof(Ints));
        const Ints high = ShiftRight16(low, 4);
        const Ints code0 = And(low, one), code1 = And(low, four);
        const Ints code2 = And(high, one), code3 = And(high, four);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const int8_t* at = q + r * x.stride + j;
          ones[r][c] = Add16(ones[r][c], MultiplyBytes(code0, Quad(at)));
          fours[r][c] = Add16(fours[r][c], MultiplyBytes(code1, Quad(at + 4)));
          ones[r][c] = Add16(ones[r][c], MultiplyBytes(code2, Quad(at + 8)));
          fours[r][c] = Add16(fours[r][c], MultiplyBytes(code3, Quad(at + 12)));
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
      for (int c = 0; c < kColumns; ++c)
        total[r][c] = Add32(
            total[r][c], Add32(Multiply16(ones[r][c], Set16(1)),
                               Divide32(Multiply16(fours[r][c], Set16(1)), 2)));
  }
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kColumns; ++c) {
      const int64_t at = column + c * kLanes;
      StoreOutputs(total[r][c], x.step[row + r], layer.scale + at,
                   layer.bias + at, y + (row + r) * layer.n + at, layer.n - at);
    }
}

template <int kRows, int kColumns>
void FewRowsOfGroup(const Layer& layer, const Activations& x, int64_t row,
                    int64_t group, float* y) {
  const int64_t end = std::min((group + 1) * kGroup, layer.n);
  for (int64_t c = group * kGroup; c < end; c += kColumns * kLanes)
    FewRows<kRows, kColumns>(layer, x, row, c, y);
}

constexpr decltype(&FewRowsOfGroup<1, 1>) kFewRowsOfGroup[kTileRows] = {
    FewRowsOfGroup<1, 2>, FewRowsOfGroup<2, 1>, FewRowsOfGroup<3, 1>,
    FewRowsOfGroup<4, 1>};

void Multiply(const Layer& layer, const Activations& x, Range rows,
              Range groups, float* y) {
  const int64_t middle = rows.begin + TableRows(rows.end - rows.begin, layer.k);
  MultiplyByTable(layer, x, {rows.begin, middle}, groups, y);
  for (int64_t group = groups.begin; group < groups.end; ++group)
    for (int64_t row = middle; row < rows.end; row += kTileRows) {
      const int64_t count = std::min<int64_t>(kTileRows, rows.end - row);
      kFewRowsOfGroup[count - 1](layer, x, row, group, y);
    }
}

int64_t PackedBytes(int64_t n, int64_t k) {
  return PackedLanesBytes(n, k, kLanes);
}

void Pack(const uint8_t* w, int64_t n, int64_t k, uint8_t* packed) {
  PackLanes(w, n, k, kLanes, packed);
}

const Registration registration({"avx2", 10, Usable, AnyLayer, 16, kGroup, 128,
                                 32, PackedBytes, Pack, Quantize, Multiply});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__x86_64__)
