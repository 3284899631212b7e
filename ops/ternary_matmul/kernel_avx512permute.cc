// AVX-512 where vpermw is as fast as vpdpbusd (AMD since Zen 4: one of 512 bits
// a cycle). The 27 sums of three activations with all weights are one register
// of 16-bit lanes; vpermw looks up 32 outputs in it by their three weights: 96
// products, where vpdpbusd does 64.
#if defined(__x86_64__)

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define INLINE TARGET __attribute__((always_inline)) inline

#include <array>
#include <utility>

#include "ternary_matmul/vector512-inl.h"

// After the vectors that it is written in.
#include "ternary_matmul/quantize-inl.h"

namespace bitsearch {
namespace {

constexpr int64_t kOutputs = 32;  // of one vector of words
constexpr int64_t kWordK = 9;     // a word is three indices of 5 bits
// Sums of 258 k fit 16 bits while no |q| is above 127, of 135 always.
constexpr int64_t kBlockK = 258;
constexpr int64_t kBlockWords = 29;
constexpr int64_t kSafeWords = 15;
constexpr int kTileRows = 6;  // 6 x 4 sums of 32 registers
constexpr int kTileVectors = 4;
constexpr int64_t kTileOutputs = kTileVectors * kOutputs;
constexpr int64_t kTileWordBytes = kTileOutputs * 2;
constexpr int64_t kChunk = 32;  // tiles for which tables are made
constexpr int64_t kLeastOutputs = 384;

bool Usable() {
  return __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

// Making tables and quantising cost what lookups for few outputs gain.
bool Suits(int64_t n, int64_t) { return n >= kLeastOutputs; }

// Words of one output. None holds k of two blocks.
int64_t Words(int64_t k) {
  return k / kBlockK * kBlockWords + DivideUp(k % kBlockK, kWordK);
}

int64_t WordOf(int64_t k) {
  return k / kBlockK * kBlockWords + k % kBlockK / kWordK;
}

int64_t FirstK(int64_t word) {
  return word / kBlockWords * kBlockK + word % kBlockWords * kWordK;
}

int64_t PackedBytes(int64_t n, int64_t k) {
  return DivideUp(n, kTileOutputs) * Words(k) * kTileWordBytes;
}

// Where a word of a tile begins: [block][n / 128][word of the block][128], in
// the order of reading.
int64_t Place(int64_t n, int64_t k, int64_t tile, int64_t word) {
  const int64_t begin = word / kBlockWords * kBlockWords;
  const int64_t words = std::min(kBlockWords, Words(k) - begin);
  const int64_t before =
      begin * DivideUp(n, kTileOutputs) + tile * words + word - begin;
  return before * kTileWordBytes;
}

// An index is c0 + 3 c1 + 9 c2 of three codes; after k the code is 1.
void Pack(const uint8_t* w, int64_t n, int64_t k, uint8_t* packed) {
  const int64_t row_bytes = DivideUp(k, 4);
  std::memset(packed, 0, PackedBytes(n, k));
  for (int64_t i = 0; i < n; ++i, w += row_bytes)
    for (int64_t j = 0; j < k; j += 3) {
      int index = 0;
      for (int64_t c = j + 2; c >= j; --c)
        index = 3 * index + (c < k ? Code(w, c) : 1);
      auto* words = reinterpret_cast<uint16_t*>(
          packed + Place(n, k, i / kTileOutputs, WordOf(j)));
      words[i % kTileOutputs] |= index << j % kBlockK % kWordK / 3 * 5;
    }
}

// The codes of every index, two bytes each: of the first and second of three
// weights, or none and the third.
struct Codes {
  alignas(64) int8_t pair[64] = {};
  alignas(64) int8_t third[64] = {};
  constexpr Codes() {
    for (int i = 0; i < 32; ++i) {
      pair[2 * i] = static_cast<int8_t>(i % 3);
      pair[2 * i + 1] = static_cast<int8_t>(i / 3 % 3);
      third[2 * i + 1] = static_cast<int8_t>(i / 9);
    }
  }
};
constexpr Codes kCodes;

// The tables of some words of one row, `step` bytes apart: sums of code times
// q. Behind k, and behind the last index of a block, q is anything: codes of 1
// are corrected for, and index 0 finds 0.
TARGET void FillTables(const int8_t* q, int64_t words, uint8_t* tables,
                       int64_t step) {
  Ints pair = Load(kCodes.pair), third = Load(kCodes.third);
  // In registers: gcc 12 would load them for every table.
  asm("" : "+v"(pair), "+v"(third));
  for (int64_t i = 0; i < 3 * words; ++i, q += 3, tables += step) {
    int16_t q01, q12;
    std::memcpy(&q01, q, sizeof q01);
    std::memcpy(&q12, q + 1, sizeof q12);
    Store(tables, Add16(MultiplyBytes(pair, Set16(q01)),
                        MultiplyBytes(third, Set16(q12))));
  }
}

TARGET int32_t Sum(const int8_t* q, int64_t count) {
  Ints total = Zero();
  int64_t i = 0;
  for (; i + 64 <= count; i += 64)
    total = Add32(total, SumsOfFour(LoadUnaligned(q + i)));
  return SumOfLanes(Add32(total, SumsOfFour(LoadBytes(q + i, count - i))));
}

// acc[v] += table[word[v]]. All lookups before all additions: one lookup a
// cycle instead of 0.85; and gcc 12 would reorder intrinsics into more live
// registers than there are.
template <int kVectors>
INLINE void AddLookups(Ints (&acc)[kVectors], const Ints (&word)[kVectors],
                       Ints table) {
  Ints found[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v)
    asm volatile("vpermw %2, %1, %0"
                 : "=v"(found[v])
                 : "v"(word[v]), "v"(table));
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v)
    asm volatile("vpaddw %1, %0, %0" : "+v"(acc[v]) : "v"(found[v]));
}

// Some words of one tile of outputs, for up to kTileRows rows.
struct Tile {
  const uint8_t* weights;
  const uint8_t* tables;
  const Ints* start;  // of the sums of each row: from code to weight times q
  int64_t words;
  bool first;
  bool last;
  const float* step;
  const float* scale;
  const float* bias;
  int32_t* sums;  // so far, [kTileRows][kTileOutputs]
  float* y;
  int64_t y_stride;
};

// Moves sums on: into 32 bits and, with the last words, into y.
template <bool kFirst, bool kLast, int kRows, int kVectors>
INLINE void Finish(const Ints (&acc)[kRows][kVectors], const Tile tile) {
  float* rows[kRows];  // once: gcc 12 would multiply for every store
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) rows[r] = tile.y + r * tile.y_stride;
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v)
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h)
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const int64_t at = v * kOutputs + h * kLanes;
        Ints sum =
            _mm512_cvtepi16_epi32(h ? _mm512_extracti64x4_epi64(acc[r][v], 1)
                                    : _mm512_castsi512_si256(acc[r][v]));
        int32_t* so_far = tile.sums + r * kTileOutputs + at;
        if (!kFirst) sum = Add32(sum, Load(so_far));
        if (kLast)
          StoreOutputs(sum, tile.step[r], tile.scale + at, tile.bias + at,
                       rows[r] + at, kLanes);
        else
          Store(so_far, sum);
      }
}

template <int kRows, int kVectors>
TARGET void Accumulate(const Tile& tile) {
  Ints acc[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) acc[r][v] = tile.start[r];
  const uint8_t* w = tile.weights;
  const uint8_t* tables = tile.tables;
  for (int64_t i = 0; i < tile.words; ++i, w += kTileWordBytes) {
    // What is written at the end comes from L3 or memory meanwhile.
    if (tile.last && i < 2 * kVectors)
      for (int r = 0; r < kRows; ++r)
        __builtin_prefetch(tile.y + r * tile.y_stride + i * kLanes, 1);
    Ints word[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) word[v] = Load(w + v * sizeof(Ints));
#pragma GCC unroll 8
    for (int t = 0; t < 3; ++t) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r, tables += sizeof(Ints))
        AddLookups(acc[r], word, Load(tables));  // by the low 5 bits alone
#pragma GCC unroll 8
      for (int v = 0; t < 2 && v < kVectors; ++v)
        word[v] = ShiftRight16(word[v], 5);
    }
  }
  if (tile.last)
    tile.first ? Finish<true, true>(acc, tile) : Finish<false, true>(acc, tile);
  else
    tile.first ? Finish<true, false>(acc, tile)
               : Finish<false, false>(acc, tile);
}

// The functions for 1, 2, ... rows and vectors.
template <int kRows, int... kLess>
constexpr auto ByVectors(std::integer_sequence<int, kLess...>) {
  return std::array{Accumulate<kRows, kLess + 1>...};
}
template <int... kLess>
constexpr auto ByRows(std::integer_sequence<int, kLess...>) {
  return std::array{
      ByVectors<kLess + 1>(std::make_integer_sequence<int, kTileVectors>())...};
}
constexpr auto kAccumulate =
    ByRows(std::make_integer_sequence<int, kTileRows>());

// Up to kTileRows rows and kChunk tiles of outputs.
TARGET void MultiplyTiles(const Layer& layer, const Activations& x, Range rows,
                          Range tiles, float* y) {
  constexpr int64_t kRowBytes = sizeof(Ints);
  alignas(64) uint8_t tables[3 * kBlockWords * kTileRows * kRowBytes];
  alignas(64) int32_t sums[kChunk][kTileRows * kTileOutputs];
  alignas(64) float some[kTileRows * kTileOutputs];
  Ints start[kTileRows];
  const int64_t count = rows.end - rows.begin;
  const int64_t words = Words(layer.k);
  const int64_t most = x.largest > 127 ? kSafeWords : kBlockWords;
  for (int64_t begin = 0, end; begin < words; begin = end) {
    const int64_t block_end = RoundUp(begin + 1, kBlockWords);
    end = std::min({begin + most, block_end, words});
    const int64_t k = FirstK(begin);
    const int64_t used = RoundUp(std::min(FirstK(end), layer.k) - k, 3);
    for (int64_t r = 0; r < count; ++r) {
      const int8_t* q = x.q + (rows.begin + r) * x.stride + k;
      FillTables(q, end - begin, tables + r * kRowBytes, count * kRowBytes);
      start[r] = Set16(-Sum(q, used));
    }
    for (int64_t t = tiles.begin; t < tiles.end; ++t) {
      const int64_t column = t * kTileOutputs;
      const int64_t outputs = std::min(kTileOutputs, layer.n - column);
      const bool whole = outputs == kTileOutputs, last = end == words;
      float* const out = y + rows.begin * layer.n + column;
      kAccumulate[count - 1][DivideUp(outputs, kOutputs) - 1](
          {layer.weights + Place(layer.n, layer.k, t, begin), tables, start,
           end - begin, begin == 0, last, x.step + rows.begin,
           layer.scale + column, layer.bias + column, sums[t - tiles.begin],
           whole ? out : some, whole ? layer.n : kTileOutputs});
      for (int64_t r = 0; last && !whole && r < count; ++r)
        std::memcpy(out + r * layer.n, some + r * kTileOutputs,
                    outputs * sizeof *out);
    }
  }
}

void Multiply(const Layer& layer, const Activations& x, Range rows,
              Range groups, float* y) {
  for (int64_t row = rows.begin, size; row < rows.end; row += size) {
    const int64_t rest = rows.end - row;
    size = DivideUp(rest, DivideUp(rest, kTileRows));  // alike
    for (int64_t t = groups.begin; t < groups.end; t += kChunk)
      MultiplyTiles(layer, x, {row, row + size},
                    {t, std::min(t + kChunk, groups.end)}, y);
  }
}

const Registration registration({"avx512permute",
                                 __builtin_cpu_is("amd") ? 40 : 25, Usable,
                                 Suits, 16, kTileOutputs, kTileRows, 16,
                                 PackedBytes, Pack, Quantize, Multiply});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__x86_64__)
