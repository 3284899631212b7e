// The table method, for many rows where there is no dot-product instruction.
// Lanes are 32 rows of 16 bits, in two vectors. For each four consecutive k all
// 81 ternary sums of their activations are formed once; an output then takes
// one addition from that table for its four weights: 64 products an addition,
// where vpmaddubsw and vpaddw do 16 an instruction.
//
// Included by kernel_avx2.cc after its vectors.
#include <algorithm>
#include <cstring>
#include <vector>

#include "ternary_matmul/kernel.h"

namespace bitsearch {
namespace {

constexpr int64_t kTableRows = 32;
constexpr int64_t kMinTableRows = 20;  // fewer leave too many lanes empty
constexpr int64_t kEntryBytes = 2 * kTableRows;
constexpr int64_t kTableBytes = 81 * kEntryBytes;
constexpr int64_t kTables = 4;              // those of 16 k: 20 KB stay in L1
constexpr int64_t kChunk = 2048;            // outputs whose sums stay in L2
constexpr int64_t kChunkWeights = 8 << 20;  // offsets of 4 MB stay in L3
constexpr int64_t kMaxTableK = 16384;       // so that 512 outputs fit

// out[j] = words j of kLanes pieces of four words.
template <class Piece>
INLINE void Transpose(Piece piece, Ints (&out)[4]) {
  const Ints a = Pieces(piece, 0), b = Pieces(piece, 1);
  const Ints c = Pieces(piece, 2), d = Pieces(piece, 3);
  const Ints low0 = Low32(a, b), low1 = Low32(c, d);
  const Ints high0 = High32(a, b), high1 = High32(c, d);
  out[0] = Low64(low0, low1);
  out[1] = High64(low0, low1);
  out[2] = Low64(high0, high1);
  out[3] = High64(high0, high1);
}

// Where an output of a vector stands in the order that Offsets leaves.
constexpr int64_t Position(int64_t lane) {
  return lane % 4 / 2 * (kLanes / 2) + lane / 4 * 2 + lane % 2;
}

// Four offsets of 16 bits an output into the tables of 16 k, for one group.
TARGET void Offsets(const uint8_t* w, uint64_t* out) {
  const Ints powers = Set32(1 + (3 << 8) + (9 << 16) + (27 << 24));
  for (int v = 0; v < 4; ++v, w += sizeof(Ints), out += kLanes) {
    Ints offset[4];
    for (int f = 0; f < 4; ++f) {
      const Ints codes = And(ShiftRight16(Load(w), 2 * f), Set8(3));
      offset[f] = Multiply16(MultiplyBytes(codes, powers), Set16(kEntryBytes));
    }
    const Ints low = Or(offset[0], ShiftLeft32(offset[1], 16));
    const Ints high = Or(offset[2], ShiftLeft32(offset[3], 16));
    Store(out, Low32(low, high));
    Store(out + kLanes / 2, High32(low, high));
  }
}

// The sums of four activations x with all weights, in the order of offsets.
INLINE void FillTable(const Ints (&x)[4], uint8_t* table) {
  const Ints pair[9] = {Sub16(Zero(), Add16(x[0], x[1])),
                        Sub16(Zero(), x[1]),
                        Sub16(x[0], x[1]),
                        Sub16(Zero(), x[0]),
                        Zero(),
                        x[0],
                        Sub16(x[1], x[0]),
                        x[1],
                        Add16(x[0], x[1])};
  Ints fourth = Sub16(Zero(), x[3]);
  for (int c3 = 0; c3 < 3; ++c3, fourth = Add16(fourth, x[3])) {
    Ints third = Sub16(fourth, x[2]);
    for (int c2 = 0; c2 < 3; ++c2, third = Add16(third, x[2]))
      for (int i = 0; i < 9; ++i, table += kEntryBytes)
        Store(table, Add16(third, pair[i]));
  }
}

// The tables of 16 k, from where each row's activations start.
TARGET void FillTables(const int8_t* const* q, int64_t k, uint8_t* tables) {
  for (int64_t part = 0; part < 2; ++part) {
    // Even 16-bit lanes are kLanes rows, odd ones the next.
    Ints even[4], odd[4];
    Transpose([&](int64_t i) { return q[2 * part * kLanes + i] + k; }, even);
    Transpose([&](int64_t i) { return q[(2 * part + 1) * kLanes + i] + k; },
              odd);
    for (int t = 0; t < kTables; ++t) {
      const Ints even02 = Divide16(ShiftLeft16(even[t], 8), 8);
      const Ints odd02 = Divide16(ShiftLeft16(odd[t], 8), 8);
      const Ints even13 = Divide16(even[t], 8), odd13 = Divide16(odd[t], 8);
      FillTable({Blend16(even02, ShiftLeft32(odd02, 16)),
                 Blend16(even13, ShiftLeft32(odd13, 16)),
                 Blend16(ShiftRight32(even02, 16), odd02),
                 Blend16(ShiftRight32(even13, 16), odd13)},
                tables + t * kTableBytes + part * sizeof(Ints));
    }
  }
}

// acc [count] += their entries of the tables, or = at first.
template <bool kFirst>
TARGET void AddEntries(const uint8_t* tables, const uint64_t* offsets,
                       int64_t count, uint8_t* acc) {
  for (int64_t i = 0; i < count; ++i, acc += kEntryBytes) {
    Ints low = kFirst ? Zero() : Load(acc);
    Ints high = kFirst ? Zero() : Load(acc + sizeof(Ints));
    uint64_t four = offsets[i];
#pragma GCC unroll 4
    for (int t = 0; t < kTables; ++t, four >>= 16) {
      const uint8_t* entry = tables + t * kTableBytes + (four & 0xffff);
      low = Add16(low, Load(entry));
      high = Add16(high, Load(entry + sizeof(Ints)));
    }
    Store(acc, low);
    Store(acc + sizeof(Ints), high);
  }
}

// The outputs and rows that share tables and offsets.
struct TableTask {
  const Layer& layer;
  const Activations& x;
  Range rows;
  Range columns;
};

// Moves the 16-bit sums of some k on: into 32 bits, and at the last into y.
TARGET void Flush(const TableTask& task, bool first, bool last,
                  const uint8_t* acc, int32_t* sums, float* y) {
  // Copies, because a store of a vector may change what is behind a pointer.
  const int64_t n = task.layer.n, count = task.columns.end - task.columns.begin;
  const int64_t rows = task.rows.end - task.rows.begin;
  const float* const scale = task.layer.scale + task.columns.begin;
  const float* const bias = task.layer.bias + task.columns.begin;
  const float* const step = task.x.step + task.rows.begin;
  y += task.rows.begin * n + task.columns.begin;
  for (int64_t i = 0; i < count; i += kLanes, acc += kLanes * kEntryBytes)
    for (int64_t word = 0; word < kTableRows / 2; word += 4) {
      Ints pairs[4];
      Transpose(
          [&](int64_t j) { return acc + Position(j) * kEntryBytes + word * 4; },
          pairs);
      for (int64_t j = 0; j < 8; ++j) {
        const int64_t row =
            word / kLanes * 2 * kLanes + word % kLanes + j % 4 + j / 4 * kLanes;
        Ints sum = j < 4 ? Divide32(ShiftLeft32(pairs[j], 16), 16)
                         : Divide32(pairs[j - 4], 16);
        int32_t* so_far = sums + row * count + i;
        if (!first) sum = Add32(sum, Load(so_far));
        if (!last)
          Store(so_far, sum);
        else if (row < rows)
          StoreOutputs(sum, step[row], scale + i, bias + i, y + row * n + i,
                       n - task.columns.begin - i);
      }
    }
}

// Memory of this thread, aligned for vectors.
uint8_t* TableScratch(int64_t bytes) {
  thread_local std::vector<uint8_t> scratch;
  if (static_cast<int64_t>(scratch.size()) < bytes + 63)
    scratch.resize(bytes + 63);
  return scratch.data() + -reinterpret_cast<uintptr_t>(scratch.data()) % 64;
}

TARGET void RunTask(const TableTask& task, float* y) {
  const Activations& x = task.x;
  const int64_t count = task.columns.end - task.columns.begin;
  const int64_t blocks = x.stride / 16;
  uint8_t* tables = TableScratch(kTables * kTableBytes + count * kEntryBytes +
                                 count * kTableRows * 4 + count * blocks * 8);
  uint8_t* acc = tables + kTables * kTableBytes;
  auto* sums = reinterpret_cast<int32_t*>(acc + count * kEntryBytes);
  auto* offsets = reinterpret_cast<uint64_t*>(sums + count * kTableRows);
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t i = 0; i < count; i += kGroup)
      Offsets(task.layer.weights +
                  ((task.columns.begin + i) * blocks + b * kGroup) * 4,
              offsets + b * count + i);
  const int64_t exact = 32767 / x.largest / 16;  // blocks that 16 bits hold
  for (int64_t row = task.rows.begin; row < task.rows.end; row += kTableRows) {
    const Range rows{row, std::min(row + kTableRows, task.rows.end)};
    const int8_t* q[kTableRows];
    for (int64_t i = 0; i < kTableRows; ++i)
      q[i] = x.q + std::min(row + i, rows.end - 1) * x.stride;
    for (int64_t b = 0; b < blocks; ++b) {
      FillTables(q, b * 16, tables);
      const auto add = b % exact ? AddEntries<false> : AddEntries<true>;
      add(tables, offsets + b * count, count, acc);
      const bool last = b + 1 == blocks;
      if (last || b % exact == exact - 1)
        Flush({task.layer, x, rows, task.columns}, b < exact, last, acc, sums,
              y);
    }
  }
}

// How many of so many rows the table method takes well.
int64_t TableRows(int64_t rows, int64_t k) {
  if (k > kMaxTableK) return 0;
  const int64_t rest = rows % kTableRows;
  return rest < kMinTableRows ? rows - rest : rows;
}

void MultiplyByTable(const Layer& layer, const Activations& x, Range rows,
                     Range groups, float* y) {
  if (rows.begin == rows.end) return;
  const int64_t size =
      std::min(kChunk, kChunkWeights / x.stride / kGroup * kGroup);
  const int64_t end = groups.end * kGroup;
  for (int64_t n = groups.begin * kGroup; n < end; n += size)
    RunTask({layer, x, rows, {n, std::min(n + size, end)}}, y);
}

}  // namespace
}  // namespace bitsearch
