// The arithmetic of the reproducible operators, Eqs. (37) to (40), and their
// loops over elements.
#include <algorithm>

#include "reproducible/kernel.h"
#include "reproducible/math-inl.h"

namespace bitsearch {
namespace {

constexpr int kVectors = 2;  // of a panel
constexpr int kColumns = kVectors * kLanes;
constexpr int64_t kDepth = 256;  // k of a panel that stays in L1
constexpr int64_t kParts = 16;   // of Eq. (38)

SPLINE_INLINE Float Load(const float* x) {
  Float y;
  __builtin_memcpy(&y, x, sizeof y);
  return y;
}
SPLINE_INLINE void Store(Float value, float* y) {
  __builtin_memcpy(y, &value, sizeof value);
}
// The first `live` numbers, then zeros.
SPLINE_INLINE Float LoadSome(const float* x, int64_t live) {
  Float y{};
  __builtin_memcpy(&y, x, live * sizeof *x);
  return y;
}
SPLINE_INLINE void StoreSome(Float value, float* y, int64_t live) {
  __builtin_memcpy(y, &value, live * sizeof *y);
}

// One block of k of Eq. (37). Sums so far stand in y unless the block is the
// first; `bias` belongs to the last.
struct Block {
  const float* x;
  int64_t k, depth;
  const float* packed;
  bool first;
  const float* bias;
  float* y;
  int64_t stride;  // of y
};

// kRows rows times kPanels panels.
template <int kRows, int kPanels>
SPLINE_TARGET void Tile(const Block& block) {
  constexpr int kWidth = kPanels * kVectors;
  const int64_t k = block.k, depth = block.depth, stride = block.stride;
  const float* x = block.x;
  Float sums[kRows][kWidth];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < kWidth; ++j)
      sums[i][j] =
          block.first ? Float{} : Load(block.y + i * stride + j * kLanes);
  const float* packed = block.packed;
  for (int64_t step = 0; step < depth; ++step, packed += kColumns) {
    Float weights[kWidth];
#pragma GCC unroll 8
    for (int j = 0; j < kWidth; ++j)
      weights[j] =
          Load(packed + j / kVectors * k * kColumns + j % kVectors * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const Float value = Splat(x[i * k + step]);
#pragma GCC unroll 8
      for (int j = 0; j < kWidth; ++j)
        sums[i][j] = Fma(value, weights[j], sums[i][j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < kWidth; ++j) {
      if (block.bias) sums[i][j] += Load(block.bias + j * kLanes);
      Store(sums[i][j], block.y + i * stride + j * kLanes);
    }
}

// The same for `live` columns, fewer than a tile has.
template <int kRows, int kPanels>
SPLINE_TARGET void EdgeTile(Block block, int64_t live) {
  constexpr int kWidth = kPanels * kColumns;
  float edge[kRows * kWidth] = {}, bias[kWidth] = {};
  float* y = block.y;
  const int64_t stride = block.stride;
  for (int i = 0; i < kRows && !block.first; ++i)
    std::copy_n(y + i * stride, live, edge + i * kWidth);
  if (block.bias) {
    std::copy_n(block.bias, live, bias);
    block.bias = bias;
  }
  block.y = edge;
  block.stride = kWidth;
  Tile<kRows, kPanels>(block);
  for (int i = 0; i < kRows; ++i)
    std::copy_n(edge + i * kWidth, live, y + i * stride);
}

// kRows rows for all panels, as many at once as registers hold: a single sum
// would wait for itself.
template <int kRows>
SPLINE_TARGET void Rows(Block block, int64_t panels, int64_t columns) {
  constexpr int kPanels = kRows == 1 ? 4 : kRows * 2 <= kTileRows ? 2 : 1;
  const int64_t panel = block.k * kColumns;
  auto advance = [&](int count) {
    block.packed += count * panel;
    block.y += count * kColumns;
    if (block.bias) block.bias += count * kColumns;
    columns -= count * kColumns;
    panels -= count;
  };
  for (; columns >= kPanels * kColumns; advance(kPanels))
    Tile<kRows, kPanels>(block);
  for (; panels > 0; advance(1)) {
    if (columns >= kColumns)
      Tile<kRows, 1>(block);
    else
      EdgeTile<kRows, 1>(block, columns);
  }
}

template <int kRows>
SPLINE_TARGET void RowsOf(int64_t rows, const Block& block, int64_t panels,
                          int64_t columns) {
  if (rows == kRows)
    Rows<kRows>(block, panels, columns);
  else if constexpr (kRows > 1)
    RowsOf<kRows - 1>(rows, block, panels, columns);
}

// Eq. (37). A panel's block of k stays in L1 while all rows go by it.
void MultiplyRows(const float* x, int64_t rows, int64_t k, const float* packed,
                  Range panels, int64_t n, const float* bias, float* y) {
  const int64_t end = std::min(panels.end * kColumns, n);
  const int64_t group = rows <= kTileRows ? panels.end - panels.begin : 1;
  int64_t from = 0;
  do {  // once even if k is 0
    const int64_t depth = std::min(kDepth, k - from);
    const bool last = from + depth == k;
    for (int64_t panel = panels.begin; panel < panels.end; panel += group) {
      const int64_t column = panel * kColumns;
      const int64_t count = std::min(group * kColumns, end - column);
      for (int64_t row = 0; row < rows; row += kTileRows) {
        const Block block{x + row * k + from,
                          k,
                          depth,
                          packed + (panel * k + from) * kColumns,
                          from == 0,
                          last && bias ? bias + column : nullptr,
                          y + row * n + column,
                          n};
        RowsOf<kTileRows>(std::min<int64_t>(kTileRows, rows - row), block,
                          group, count);
      }
    }
    from += depth;
  } while (from < k);
}

// The partial sums of Eq. (38).
struct Partial {
  Float sums[kParts / kLanes];
};

SPLINE_INLINE float Total(const Partial& partial) {
  float parts[kParts];
  __builtin_memcpy(parts, partial.sums, sizeof parts);
  for (int64_t half = kParts / 2; half; half /= 2)
    for (int64_t j = 0; j < half; ++j) parts[j] += parts[j + half];
  return parts[0];
}

SPLINE_INLINE Float LoadUpTo(const float* x, int64_t live) {
  return live == kLanes ? Load(x) : LoadSome(x, live);
}
SPLINE_INLINE void StoreUpTo(Float value, float* y, int64_t live) {
  if (live == kLanes)
    Store(value, y);
  else
    StoreSome(value, y, live);
}

SPLINE_TARGET float SumOf(const float* x, int64_t size) {
  Partial partial{};
  int64_t i = 0;
  for (; i + kParts <= size; i += kParts)
    for (int part = 0; part < kParts / kLanes; ++part)
      partial.sums[part] += Load(x + i + part * kLanes);
  for (int part = 0; i < size; i += kLanes, ++part)
    partial.sums[part] += LoadUpTo(x + i, std::min<int64_t>(kLanes, size - i));
  return Total(partial);
}

SPLINE_TARGET float SumOfSquares(const float* x, int64_t size) {
  Partial partial{};
  int64_t i = 0;
  for (; i + kParts <= size; i += kParts)
    for (int part = 0; part < kParts / kLanes; ++part) {
      const Float value = Load(x + i + part * kLanes);
      partial.sums[part] = Fma(value, value, partial.sums[part]);
    }
  for (int part = 0; i < size; i += kLanes, ++part) {
    const Float value = LoadUpTo(x + i, std::min<int64_t>(kLanes, size - i));
    partial.sums[part] = Fma(value, value, partial.sums[part]);
  }
  return Total(partial);
}

// Columns are lanes; each has partial sums of its own.
SPLINE_TARGET void SumColumns(const float* x, int64_t size, int64_t inner,
                              float* y) {
  for (int64_t column = 0; column < inner; column += kLanes) {
    const int64_t live = std::min<int64_t>(kLanes, inner - column);
    Float parts[kParts] = {};
    for (int64_t k = 0; k < size; ++k)
      parts[k % kParts] += LoadUpTo(x + k * inner + column, live);
    for (int64_t half = kParts / 2; half; half /= 2)
      for (int64_t j = 0; j < half; ++j) parts[j] += parts[j + half];
    StoreUpTo(parts[0], y + column, live);
  }
}

SPLINE_TARGET void Sum(const float* x, int64_t outer, int64_t size,
                       int64_t inner, float* y) {
  for (int64_t i = 0; i < outer; ++i) {
    if (inner == 1)
      y[i] = SumOf(x + i * size, size);
    else
      SumColumns(x + i * size * inner, size, inner, y + i * inner);
  }
}

// The largest element for Eq. (39), whatever the order; a NaN is passed over
// here and makes NaN of its row's sum.
SPLINE_TARGET float Largest(const float* x, int64_t size) {
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  float largest = kLowest;
  int64_t i = 0;
  if (size >= kLanes) {
    Float lanes = Splat(kLowest);
    for (; i + kLanes <= size; i += kLanes) lanes = Max(Load(x + i), lanes);
    for (int lane = 0; lane < kLanes; ++lane)
      largest = lanes[lane] > largest ? lanes[lane] : largest;
  }
  for (; i < size; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

SPLINE_TARGET void Softmax(const float* x, int64_t rows, int64_t size,
                           float* y) {
  for (int64_t row = 0; row < rows; ++row, x += size, y += size) {
    const Float largest = Splat(Largest(x, size));
    for (int64_t i = 0; i < size; i += kLanes) {
      const int64_t live = std::min<int64_t>(kLanes, size - i);
      StoreUpTo(ExpAny(LoadUpTo(x + i, live) - largest), y + i, live);
    }
    const Float total = Splat(SumOf(y, size));
    for (int64_t i = 0; i < size; i += kLanes) {
      const int64_t live = std::min<int64_t>(kLanes, size - i);
      StoreUpTo(LoadUpTo(y + i, live) / total, y + i, live);
    }
  }
}

// Eq. (40).
SPLINE_TARGET void Normalize(const float* x, int64_t rows, int64_t size,
                             const float* scale, const float* bias,
                             float epsilon, float* y) {
  const float count = static_cast<float>(size);
  for (int64_t row = 0; row < rows; ++row, x += size, y += size) {
    const Float mean = Splat(SumOf(x, size) / count);
    for (int64_t i = 0; i < size; i += kLanes) {
      const int64_t live = std::min<int64_t>(kLanes, size - i);
      StoreUpTo(LoadUpTo(x + i, live) - mean, y + i, live);
    }
    const float variance = SumOfSquares(y, size) / count;
    const Float inverse = Splat(1.0f / std::sqrt(variance + epsilon));
    for (int64_t i = 0; i < size; i += kLanes) {
      const int64_t live = std::min<int64_t>(kLanes, size - i);
      const Float normal = LoadUpTo(y + i, live) * inverse;
      StoreUpTo(normal * LoadUpTo(scale + i, live) + LoadUpTo(bias + i, live),
                y + i, live);
    }
  }
}

template <Float (*kFunction)(Float)>
SPLINE_TARGET void ApplyTo(const float* x, int64_t count, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Store(kFunction(Load(x + i)), y + i);
  if (i < count)
    StoreSome(kFunction(LoadSome(x + i, count - i)), y + i, count - i);
}

constexpr decltype(&ApplyTo<ExpAny>) kFunctions[] = {
    ApplyTo<Rounded<Asinh64>>,
    ApplyTo<Rounded<Atan64>>,
    ApplyTo<Rounded<Turned<1>>>,
    ApplyTo<Rounded<Cosh64>>,
    ApplyTo<Erf>,
    ApplyTo<ExpAny>,
    ApplyTo<Gelu>,
    ApplyTo<GeluTanh>,
    ApplyTo<Rounded<Log64>>,
    ApplyTo<SigmoidAny>,
    ApplyTo<Rounded<Turned<0>>>,
    ApplyTo<Rounded<Sinh64>>,
    ApplyTo<Sqrt>,
    ApplyTo<Tanh>};

void Apply(Elementary function, const float* x, int64_t count, float* y) {
  kFunctions[static_cast<int>(function)](x, count, y);
}

}  // namespace
}  // namespace bitsearch
