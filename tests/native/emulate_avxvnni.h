// Runs AVX-VNNI's vpdpbusd where the processor does not know it: the very bytes
// that kernel_avxvnni.cc ships, one illegal-instruction signal each.
#ifndef BITSEARCH_EMULATE_AVXVNNI_H_
#define BITSEARCH_EMULATE_AVXVNNI_H_

#if defined(__x86_64__)

#include <signal.h>
#include <ucontext.h>

#include <array>
#include <cstdint>
#include <cstring>

namespace bitsearch {

// Where the signal frame (xsave, standard format) keeps a register's halves.
inline uint8_t* Half(ucontext_t* context, int index, int half) {
  auto* frame = reinterpret_cast<uint8_t*>(context->uc_mcontext.fpregs);
  return frame + (half ? 576 : 160) + 16 * index;
}

// VEX.256.66.0F38.W0 50 /r between registers; anything else stays illegal.
inline void OnIllegalInstruction(int, siginfo_t*, void* frame) {
  auto* context = static_cast<ucontext_t*>(frame);
  auto* at = reinterpret_cast<uint8_t*>(context->uc_mcontext.gregs[REG_RIP]);
  if (at[0] != 0xc4 || (at[1] & 0x1f) != 2 || (at[2] & 0x87) != 5 ||
      at[3] != 0x50 || at[4] < 0xc0) {
    signal(SIGILL, SIG_DFL);
    return;
  }
  const int sum = (at[4] >> 3 & 7) | (at[1] & 0x80 ? 0 : 8);
  const int codes = ~at[2] >> 3 & 15;
  const int q = (at[4] & 7) | (at[1] & 0x20 ? 0 : 8);
  for (int half = 0; half < 2; ++half)
    for (int lane = 0; lane < 4; ++lane) {
      uint8_t a[4];
      int8_t b[4];
      int32_t total;
      std::memcpy(a, Half(context, codes, half) + 4 * lane, 4);
      std::memcpy(b, Half(context, q, half) + 4 * lane, 4);
      std::memcpy(&total, Half(context, sum, half) + 4 * lane, 4);
      for (int i = 0; i < 4; ++i) total += a[i] * b[i];
      std::memcpy(Half(context, sum, half) + 4 * lane, &total, 4);
    }
  context->uc_mcontext.gregs[REG_RIP] += 5;
}

inline bool EmulateAvxVnni() {
  static const bool installed = [] {
    struct sigaction action = {};
    action.sa_sigaction = OnIllegalInstruction;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    return __builtin_cpu_supports("avx2") &&
           sigaction(SIGILL, &action, nullptr) == 0;
  }();
  return installed;
}

}  // namespace bitsearch

#else

namespace bitsearch {
inline bool EmulateAvxVnni() { return false; }
}  // namespace bitsearch

#endif  // defined(__x86_64__)

#endif  // BITSEARCH_EMULATE_AVXVNNI_H_
