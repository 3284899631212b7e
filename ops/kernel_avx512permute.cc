// AVX-512 where vpermw is as fast as vpdpbusd (AMD since Zen 4: one of 512 bits
// a cycle). The 27 sums of three activations with all weights are one register
// of 16-bit lanes; vpermw looks up 32 outputs in it by their three weights: 96
// products, where vpdpbusd does 64.
#if defined(__x86_64__)

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define INLINE TARGET __attribute__((always_inline)) inline

#include "vector512.h"

// After the vectors that it is written in.
#include "quantize.h"

namespace bitsearch {
namespace {

constexpr int64_t kOutputs = 32;     // of one vector of words
constexpr int64_t kWordK = 9;        // a word is three indices of 5 bits
constexpr int64_t kBlockWords = 28;  // 252 k, whose sums fit 16 bits
constexpr int64_t kTables = 3 * (kBlockWords + 1);
constexpr int64_t kLeastOutputs = 384;
constexpr int64_t kChunk = 128;  // vectors of outputs for which tables are made
constexpr int kTileRows = 6;     // 6 x 4 sums of 32 registers
constexpr int kTileVectors = 4;

bool Usable() {
  return __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

// Making tables and quantising cost what lookups for few outputs gain.
bool Suits(int64_t n, int64_t) { return n >= kLeastOutputs; }

int64_t PackedBytes(int64_t n, int64_t k) {
  return DivideUp(n, kOutputs) * DivideUp(k, kWordK) * kOutputs * 2;
}

// [n / 32][k / 9][32] words; an index is c0 + 3 c1 + 9 c2 of three codes.
void Pack(const uint8_t* w, int64_t n, int64_t k, uint8_t* packed) {
  constexpr int kPowers[] = {1, 3, 9};
  const int64_t words = DivideUp(k, kWordK);
  std::memset(packed, 0, PackedBytes(n, k));
  auto* out = reinterpret_cast<uint16_t*>(packed);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j)
      out[(i / kOutputs * words + j / kWordK) * kOutputs + i % kOutputs] +=
          Code(w + i * DivideUp(k, 4), j) * kPowers[j % 3]
          << j % kWordK / 3 * 5;
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

// The tables of some words of one row, `step` bytes apart, as sums of code
// times q; returns, in each lane, what corrects them to weight times q.
TARGET Ints FillTables(const int8_t* q, int64_t words, uint8_t* tables,
                       int64_t step) {
  const Ints pair = Load(kCodes.pair), third = Load(kCodes.third);
  Ints total = Zero();
  for (int64_t i = 0; i < 3 * words; ++i, q += 3, tables += step) {
    int16_t q01, q12;
    std::memcpy(&q01, q, sizeof q01);
    std::memcpy(&q12, q + 1, sizeof q12);
    const Ints table = Add16(MultiplyBytes(pair, Set16(q01)),
                             MultiplyBytes(third, Set16(q12)));
    Store(tables, table);
    total = Add16(total, table);
  }
  // The index of three codes 1 is 13.
  return Sub16(Zero(), _mm512_permutexvar_epi16(Set16(13), total));
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

// Rows and outputs of one call, and the words of k in it.
struct Part {
  Range rows;
  Range vectors;
  Range words;
  bool last;
};

// Sums of kRows x kVectors vectors of outputs, moved on: into 32 bits, and at
// the last words into y.
template <int kRows, int kVectors>
TARGET void Accumulate(const Layer& layer, const Activations& x, Part part,
                       int64_t vector, const uint8_t* tables,
                       const Ints* correction, int32_t* sums, float* y) {
  const int64_t words = DivideUp(layer.k, kWordK);
  const uint8_t* w = layer.weights + (vector * words + part.words.begin) * 64;
  Ints acc[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) acc[r][v] = correction[r];
  for (int64_t i = part.words.begin; i < part.words.end; ++i, w += 64) {
    Ints word[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) word[v] = Load(w + v * words * 64);
#pragma GCC unroll 8
    for (int t = 0; t < 3; ++t) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r, tables += 64)
        AddLookups(acc[r], word, Load(tables));  // by the low 5 bits alone
#pragma GCC unroll 8
      for (int v = 0; t < 2 && v < kVectors; ++v)
        word[v] = ShiftRight16(word[v], 5);
    }
  }
  // Copies, because a store of a vector may change what is behind a pointer.
  const int64_t n = layer.n, column = vector * kOutputs;
  const float* const scale = layer.scale + column;
  const float* const bias = layer.bias + column;
  const float* const step = x.step + part.rows.begin;
  const bool first = part.words.begin == 0, last = part.last;
  float* const out = y + part.rows.begin * n + column;
  int32_t* const kept = sums + column - part.vectors.begin * kOutputs;
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v)
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        const int64_t at = v * kOutputs + h * kLanes;
        Ints sum =
            _mm512_cvtepi16_epi32(h ? _mm512_extracti64x4_epi64(acc[r][v], 1)
                                    : _mm512_castsi512_si256(acc[r][v]));
        int32_t* so_far = kept + r * kChunk * kOutputs + at;
        if (!first) sum = Add32(sum, Load(so_far));
        if (last)
          StoreOutputs(sum, step[r], scale + at, bias + at, out + r * n + at,
                       n - column - at);
        else
          Store(so_far, sum);
      }
}

template <int kRows>
constexpr decltype(&Accumulate<1, 1>) kAccumulate[kTileVectors] = {
    Accumulate<kRows, 1>, Accumulate<kRows, 2>, Accumulate<kRows, 3>,
    Accumulate<kRows, 4>};
constexpr const decltype(&Accumulate<1, 1>)* kAccumulateRows[kTileRows] = {
    kAccumulate<1>, kAccumulate<2>, kAccumulate<3>,
    kAccumulate<4>, kAccumulate<5>, kAccumulate<6>};

// Up to kTileRows rows and kChunk vectors of outputs.
TARGET void MultiplyTile(const Layer& layer, const Activations& x, Range rows,
                         Range vectors, float* y) {
  alignas(64) uint8_t tables[kTables * kTileRows * 64];
  alignas(64) int32_t sums[kTileRows * kChunk * kOutputs];
  Ints correction[kTileRows];
  const int64_t count = rows.end - rows.begin;
  const int64_t words = DivideUp(layer.k, kWordK);
  for (int64_t begin = 0, end; begin < words; begin = end) {
    const int64_t k = layer.k - begin * kWordK;
    const bool last = words - begin <= kBlockWords + 1 &&
                      k * x.largest <= 32767;  // 256 k as one block, mostly
    end = last ? words : std::min(begin + kBlockWords, words);
    for (int64_t r = 0; r < count; ++r)
      correction[r] =
          FillTables(x.q + (rows.begin + r) * x.stride + begin * kWordK,
                     end - begin, tables + r * 64, count * 64);
    for (int64_t v = vectors.begin; v < vectors.end; v += kTileVectors) {
      const int64_t some = std::min<int64_t>(kTileVectors, vectors.end - v);
      kAccumulateRows[count - 1][some - 1](
          layer, x, {rows, vectors, {begin, end}, end == words}, v, tables,
          correction, sums, y);
    }
  }
}

void Multiply(const Layer& layer, const Activations& x, Range rows,
              Range groups, float* y) {
  const int64_t end =
      std::min(groups.end * kTileVectors, DivideUp(layer.n, kOutputs));
  for (int64_t row = rows.begin, size; row < rows.end; row += size) {
    const int64_t rest = rows.end - row;
    size = DivideUp(rest, DivideUp(rest, kTileRows));
    for (int64_t v = groups.begin * kTileVectors; v < end; v += kChunk)
      MultiplyTile(layer, x, {row, row + size}, {v, std::min(v + kChunk, end)},
                   y);
  }
}

const Registration registration({"avx512permute",
                                 __builtin_cpu_is("amd") ? 40 : 25, Usable,
                                 Suits, 144, kOutputs * kTileVectors, kTileRows,
                                 16, PackedBytes, Pack, Quantize, Multiply});

}  // namespace
}  // namespace bitsearch

#endif  // defined(__x86_64__)
