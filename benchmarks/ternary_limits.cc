// Instruction rates and bandwidths of one core, in processor time of the
// thread.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int kRuns = 20000;

double Now() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * 1e9 + now.tv_nsec;
}

template <class Body>
double BestNanoseconds(Body body) {
  double best = 1e30;
  for (int i = 0; i < 100; ++i) {
    const double start = Now();
    body();
    best = std::min(best, Now() - start);
  }
  return best;
}

// Eight instructions on eight sums; "2" is a second register for each.
#define EIGHT(F) \
  F(0, 8) F(1, 9) F(2, 10) F(3, 11) F(4, 12) F(5, 13) F(6, 14) F(7, 15)
#define SUMS                                                              \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
      "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
#define RATE(name, code, memory, products)                                    \
  {                                                                           \
    const double time = BestNanoseconds([] {                                  \
      for (int i = 0; i < kRuns; ++i) asm volatile(code::"r"(memory) : SUMS); \
    });                                                                       \
    const double rate = 8 * kRuns / time;                                     \
    std::printf("%-34s %5.2f G/s %6.0f G products/s\n", name, rate,           \
                rate * (products));                                           \
  }

#define DOT512(a, b) "vpdpbusd %%zmm16, %%zmm17, %%zmm" #a "\n"
#define DOT256(a, b) "vpdpbusd %%ymm16, %%ymm17, %%ymm" #a "\n"
#define AND_DOT(a, b)                 \
  "vpandd %%zmm16, %%zmm17, %%zmm" #b \
  "\n"                                \
  "vpdpbusd %%zmm16, %%zmm" #b ", %%zmm" #a "\n"
#define FMA(a, b) "vfmadd231ps %%zmm16, %%zmm17, %%zmm" #a "\n"
#define FMA256(a, b) "vfmadd231ps %%ymm8, %%ymm9, %%ymm" #a "\n"
#define MADD(a, b)                         \
  "vpmaddubsw (%0), %%ymm" #b ", %%ymm" #b \
  "\n"                                     \
  "vpaddw %%ymm" #b ", %%ymm" #a ", %%ymm" #a "\n"
#define LOOKUP(a, b) "vpermw %%zmm16, %%zmm17, %%zmm" #b "\n"
#define ADD(a, b) "vpaddw %%zmm" #b ", %%zmm" #a ", %%zmm" #a "\n"
#define SHIFT "vpsrlw $5, %%zmm17, %%zmm18\n"
#define ROW(a, b)                 \
  LOOKUP(a, b) SHIFT LOOKUP(a, b) \
  SHIFT LOOKUP(a, b) ADD(a, b) ADD(a, b) ADD(a, b)
#define ADD_MEMORY(a, b) "vpaddw (%0), %%ymm" #a ", %%ymm" #a "\n"
#define LOAD(a, b) "vmovdqa64 64*" #a "(%0), %%zmm" #a "\n"
#define LOAD256(a, b) "vmovdqa 32*" #a "(%0), %%ymm" #a "\n"
#define STORE(a, b) "vmovdqa64 %%zmm16, 64*" #a "(%0)\n"
#define STORE256(a, b) "vmovdqa %%ymm8, 32*" #a "(%0)\n"
#define STREAM(a, b) "vmovntdq %%zmm16, 64*" #a "(%0)\n"
#define STREAM256(a, b) "vmovntdq %%ymm8, 32*" #a "(%0)\n"

alignas(64) char line[64];

// Reads, writes and writes past the caches of eight vectors at a time.
struct Passes {
  void (*read)(char* p);
  void (*write)(char* p);
  void (*stream)(char* p);
  size_t step;
};

constexpr Passes kWide{
    [](char* p) { asm volatile(EIGHT(LOAD)::"r"(p)
                               : "memory", SUMS); },
    [](char* p) { asm volatile(EIGHT(STORE)::"r"(p)
                               : "memory", SUMS); },
    [](char* p) { asm volatile(EIGHT(STREAM)::"r"(p)
                               : "memory", SUMS); }, 512};
constexpr Passes kNarrow{
    [](char* p) { asm volatile(EIGHT(LOAD256)::"r"(p)
                               : "memory", SUMS); },
    [](char* p) { asm volatile(EIGHT(STORE256)::"r"(p)
                               : "memory", SUMS); },
    [](char* p) { asm volatile(EIGHT(STREAM256)::"r"(p)
                               : "memory", SUMS); },
    256};

}  // namespace

int main() {
  const bool wide = __builtin_cpu_supports("avx512bw");
  const bool dot = __builtin_cpu_supports("avx512vnni");
  if (dot) {
    RATE("vpdpbusd 512", EIGHT(DOT512), line, 64)
    RATE("vpandd + vpdpbusd 512", EIGHT(AND_DOT), line, 64)
    if (__builtin_cpu_supports("avx512vl"))
      RATE("vpdpbusd 256", EIGHT(DOT256), line, 32)
  }
  if (wide) {
    RATE("8 vpermw, then 8 vpaddw 512", EIGHT(LOOKUP) EIGHT(ADD), line, 96)
    RATE("lookups of one row, with shifts", EIGHT(ROW), line, 288)
    RATE("vfmadd231ps 512", EIGHT(FMA), line, 16)
  }
  RATE("vpmaddubsw + vpaddw 256", EIGHT(MADD), line, 32)
  RATE("vpaddw from memory 256 (table)", EIGHT(ADD_MEMORY), line, 64)
  RATE("vfmadd231ps 256", EIGHT(FMA256), line, 8)
  const Passes& passes = wide ? kWide : kNarrow;
  for (const size_t kilobytes : {16, 256, 2048, 8192, 65536}) {
    const size_t bytes = kilobytes << 10;
    auto* data = static_cast<char*>(std::aligned_alloc(4096, bytes));
    std::memset(data, 1, bytes);
    const double total = std::max<size_t>(bytes, 4 << 20);
    auto pass = [&](auto body) {
      return total / BestNanoseconds([&] {
               for (double done = 0; done < total; done += bytes)
                 for (char* p = data; p < data + bytes; p += passes.step)
                   body(p);
             });
    };
    std::printf("%6zu KB: read %5.1f", kilobytes, pass(passes.read));
    std::printf("  write %5.1f", pass(passes.write));
    std::printf("  write past the caches %5.1f GB/s\n", pass(passes.stream));
    std::free(data);
  }
}
