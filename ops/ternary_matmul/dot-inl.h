// Kernels with a dot-product instruction, which adds, in each 32-bit lane, four
// products of bytes: of weight codes {0, 1, 2} and activations, so that codes
// minus the row's sum of q (Eq. 7) need no offset and cannot saturate.
//
// Included by a kernel_<isa>.cc after the vectors that this is written in, and
// after DotAdd, Field, FieldShift and the three sizes below.
//   kFewRows     rows of the in-register method; 4 sums for each and a vector
//   kTileRows    rows and
//   kTileVectors vectors of outputs whose sums registers hold in a tile
//
// Small layers are kept twice: packed for few rows, whose time is that of
// reading weights, and as bytes for more, which nothing then has to unpack.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "ternary_matmul/kernel.h"

namespace bitsearch {
namespace {

constexpr int64_t kGroup = 4 * kLanes;
constexpr int64_t kVectorBytes = 4 * kLanes;
constexpr int64_t kManyRows = 24;  // from here on, unpacking once pays
constexpr int64_t kBlockRows = 192;
constexpr int64_t kPanelK = 1280;  // k of an unpacked panel: 80 KB at most
constexpr int64_t kWideWeights = 1 << 17;  // layers up to this, kept twice:
constexpr int64_t kWideRows = 6;           // for more than these rows
constexpr int64_t kFieldK = 65536;  // k whose sums, times 64, fit 32 bits

INLINE Ints Quad(const int8_t* q) {
  int32_t quad;
  std::memcpy(&quad, q, sizeof quad);
  return Set32(quad);
}

// Few rows: the weights are unpacked in registers by one AND a field and no
// shift. A field stays multiplied by a power of 4, in a sum of its own, and the
// sums meet at the end.
template <int kRows, int kVectors>
TARGET void FewRows(const Layer& layer, const Activations& x, int64_t row,
                    int64_t column, float* y) {
  const uint8_t* w = layer.weights + column / kGroup * kGroup * x.stride / 4 +
                     column % kGroup * 4;
  const int8_t* q = x.q + row * x.stride;
  Ints total[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) total[r][v] = Set32(-x.sum[row + r]);
  for (int64_t begin = 0; begin < x.stride; begin += kFieldK) {
    Ints acc[kRows][kVectors][4];
    for (auto& of_row : acc)
      for (auto& of_vector : of_row)
        for (auto& of_field : of_vector) of_field = Zero();
    const int64_t end = std::min(begin + kFieldK, x.stride);
    for (int64_t j = begin; j < end; j += 16, w += 4 * kVectorBytes) {
      // One row waits for weights from beyond L2; more rows wait for nothing.
      if (kRows == 1) __builtin_prefetch(w + 16 * kVectorBytes);
#pragma GCC unroll 4
      for (int f = 0; f < 4; ++f) {
        Ints quad[kRows];
        for (int r = 0; r < kRows; ++r)
          quad[r] = Quad(q + r * x.stride + j + 4 * f);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          const Ints codes = Field(Load(w + v * kVectorBytes), f);
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) DotAdd(acc[r][v][f], codes, quad[r]);
        }
      }
    }
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v)
        for (int f = 0; f < 4; ++f)
          total[r][v] =
              Add32(total[r][v], Divide32(acc[r][v][f], FieldShift(f)));
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = column + v * kLanes;
      StoreOutputs(total[r][v], x.step[row + r], layer.scale + at,
                   layer.bias + at, y + (row + r) * layer.n + at, layer.n - at);
    }
}

template <int kRows>
void FewRowsOfGroup(const Layer& layer, const Activations& x, int64_t row,
                    int64_t group, float* y) {
  constexpr int kFit = kFewRows / kRows;
  constexpr int kVectors = kFit >= 4 ? 4 : kFit >= 2 ? 2 : 1;
  const int64_t end = std::min((group + 1) * kGroup, layer.n);
  for (int64_t n = group * kGroup; n < end; n += kVectors * kLanes)
    FewRows<kRows, kVectors>(layer, x, row, n, y);
}

bool Wide(int64_t n, int64_t k) {
  return RoundUp(n, kGroup) * RoundUp(k, 16) <= kWideWeights;
}

// Bytes of codes [k / 4][kGroup][4] from k codes of one group.
TARGET void Unpack(const uint8_t* w, int64_t k, uint8_t* panel) {
  for (int64_t j = 0; j < k; j += 16, panel += 16 * kGroup)
    for (int v = 0; v < 4; ++v, w += kVectorBytes)
      for (int f = 0; f < 4; ++f)
        Store(panel + f * 4 * kGroup + v * kVectorBytes,
              And(ShiftRight16(Load(w), 2 * f), Set8(3)));
}

// Rows from `row` and outputs from `column` on, at the k of one panel.
struct Piece {
  int64_t row;
  int64_t column;
  int64_t begin;
  int64_t k;
  bool last;
};

// sums [kRows][4] += products of a panel and kRows rows; the last go into y.
// Without the pragmas gcc 12 keeps the sums in memory: 85 instead of 200
// products a nanosecond.
template <int kRows, int kVectors>
TARGET void Tile(const Layer& layer, const Activations& x, const Piece& piece,
                 const uint8_t* panel, Ints* sums, float* y) {
  const int64_t stride = x.stride, k = piece.k;
  const int8_t* q = x.q + piece.row * stride + piece.begin;
  Ints acc[kRows][kVectors];
  if (piece.begin == 0) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v)
        acc[r][v] = Set32(-x.sum[piece.row + r]);
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v) acc[r][v] = sums[4 * r + v];
  }
  for (int64_t j = 0; j < k; j += 4, panel += 4 * kGroup) {
    Ints codes[kVectors];
    for (int v = 0; v < kVectors; ++v)
      codes[v] = Load(panel + v * kVectorBytes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Ints quad = Quad(q + r * stride + j);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) DotAdd(acc[r][v], codes[v], quad);
    }
  }
  if (!piece.last) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v) sums[4 * r + v] = acc[r][v];
    return;
  }
  // Copies, because a store of a vector may change what is behind a pointer.
  const int64_t n = layer.n, rest = n - piece.column;
  const float* const scale = layer.scale + piece.column;
  const float* const bias = layer.bias + piece.column;
  const float* const step = x.step + piece.row;
  float* const out = y + piece.row * n + piece.column;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = v * kLanes;
      StoreOutputs(acc[r][v], step[r], scale + at, bias + at, out + r * n + at,
                   rest - at);
    }
}

// The functions for 1, 2, ... rows.
template <int... kLess>
constexpr auto FewRowsTable(std::integer_sequence<int, kLess...>) {
  return std::array{FewRowsOfGroup<kLess + 1>...};
}
template <int kRows, int... kLess>
constexpr auto TileVectors(std::integer_sequence<int, kLess...>) {
  return std::array{Tile<kRows, kLess + 1>...};
}
template <int... kLess>
constexpr auto TileTable(std::integer_sequence<int, kLess...>) {
  return std::array{TileVectors<kLess + 1>(
      std::make_integer_sequence<int, kTileVectors>())...};
}
constexpr auto kFewRowsOfGroup =
    FewRowsTable(std::make_integer_sequence<int, kFewRows>());
constexpr auto kTile = TileTable(std::make_integer_sequence<int, kTileRows>());

// Many rows: one group's weights are unpacked to bytes once for all of them,
// unless they are kept so.
TARGET void ManyRowsOfGroup(const Layer& layer, const Activations& x,
                            Range rows, int64_t group, float* y) {
  alignas(64) uint8_t unpacked[kPanelK * kGroup];
  Ints sums[kBlockRows * 4];
  const uint8_t* w = layer.weights + group * kGroup * x.stride / 4;
  const uint8_t* wide = layer.weights +
                        PackedLanesBytes(layer.n, layer.k, kLanes) +
                        group * kGroup * x.stride;
  const bool is_wide = Wide(layer.n, layer.k);
  const int64_t outputs = std::min(kGroup, layer.n - group * kGroup);
  const int vectors = static_cast<int>(DivideUp(outputs, kLanes));
  const int64_t end = RoundUp(layer.k, 4);
  for (int64_t begin = 0; begin < end; begin += kPanelK) {
    const int64_t k = std::min(kPanelK, end - begin);
    if (!is_wide) Unpack(w + begin * kGroup / 4, k, unpacked);
    const uint8_t* panel = is_wide ? wide + begin * kGroup : unpacked;
    const bool last = begin + k == end;
    for (int64_t row = rows.begin, count; row < rows.end; row += count) {
      const int64_t rest = rows.end - row;
      count = DivideUp(rest, DivideUp(rest, kTileRows));  // alike
      for (int v = 0; v < vectors; v += kTileVectors)
        kTile[count - 1][std::min(kTileVectors, vectors - v) - 1](
            layer, x, {row, group * kGroup + v * kLanes, begin, k, last},
            panel + v * kVectorBytes, sums + (row - rows.begin) * 4 + v, y);
    }
  }
}

void Multiply(const Layer& layer, const Activations& x, Range rows,
              Range groups, float* y) {
  const int64_t few = Wide(layer.n, layer.k) ? kWideRows : kManyRows;
  for (int64_t group = groups.begin; group < groups.end; ++group) {
    if (rows.end - rows.begin > few) {
      ManyRowsOfGroup(layer, x, rows, group, y);
      continue;
    }
    for (int64_t row = rows.begin; row < rows.end; row += kFewRows) {
      const int64_t count = std::min<int64_t>(kFewRows, rows.end - row);
      kFewRowsOfGroup[count - 1](layer, x, row, group, y);
    }
  }
}

int64_t PackedBytes(int64_t n, int64_t k) {
  const int64_t bytes = PackedLanesBytes(n, k, kLanes);
  return Wide(n, k) ? 5 * bytes : bytes;
}

void Pack(const uint8_t* w, int64_t n, int64_t k, uint8_t* packed) {
  PackLanes(w, n, k, kLanes, packed);
  if (!Wide(n, k)) return;
  const int64_t bytes = PackedLanesBytes(n, k, kLanes);
  for (int64_t at = 0; at < bytes; at += RoundUp(k, 16) * kGroup / 4)
    Unpack(packed + at, RoundUp(k, 16), packed + bytes + 4 * at);
}

}  // namespace
}  // namespace bitsearch
