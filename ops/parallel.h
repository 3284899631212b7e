// Sizes and ranges of work, and the threads that share it.
#ifndef BITSEARCH_PARALLEL_H_
#define BITSEARCH_PARALLEL_H_

#include <cstddef>
#include <cstdint>

namespace bitsearch {

struct Range {
  int64_t begin;
  int64_t end;
};

// Runs body(data, 0) ... body(data, total - 1), in any order, on any threads.
struct Pool {
  void* context;
  void (*run)(void* context, void (*body)(void* data, size_t index),
              size_t total, void* data);
};

// False where the product does not fit; sizes that a file declares may not.
inline bool Multiply(int64_t a, int64_t b, int64_t* product) {
  return !__builtin_mul_overflow(a, b, product);
}

constexpr int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t RoundUp(int64_t a, int64_t b) { return DivideUp(a, b) * b; }

}  // namespace bitsearch

#endif  // BITSEARCH_PARALLEL_H_
