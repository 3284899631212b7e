// What fuzzers share. Buffers have exact sizes, so that sanitizers see any
// access beyond them.
#ifndef BITSEARCH_TESTS_FUZZ_H_
#define BITSEARCH_TESTS_FUZZ_H_

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <thread>

#include "ternary_matmul/linear.h"

namespace {

using Random = std::mt19937_64;

int64_t Pick(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

float Value(Random& random) {
  constexpr float kHostile[] = {0,     -0.f,     1e-45f, -1e-39f,
                                1e-8f, 3.4e38f,  -3e38f, 127.5f,
                                -0.5f, INFINITY, NAN,    1};
  if (Pick(random, 0, 3000) == 0) return kHostile[Pick(random, 0, 11)];
  return std::normal_distribution<float>()(random);
}

// Exactly `count` elements, off the natural alignment by a whole element.
template <class T>
struct Buffer {
  explicit Buffer(int64_t count) : memory(new T[count + 1]), data(&memory[1]) {}
  std::unique_ptr<T[]> memory;
  T* data;
};

// A pool without order: every task may run on any thread.
void RunTasks(void*, void (*body)(void*, size_t), size_t total, void* data) {
  std::atomic<size_t> next{0};
  auto work = [&] {
    for (size_t i; (i = next++) < total;) body(data, i);
  };
  std::thread other(work);
  work();
  other.join();
}

bool Same(float a, float b) {
  return (std::isnan(a) && std::isnan(b)) || !std::memcmp(&a, &b, sizeof a);
}

// Runs fuzz(seed, seconds) twice at once, as the words of a command line say:
// [SECONDS [SEED]]. The sum of what it returns.
template <class Function>
int FuzzInTwoThreads(int count, char** arguments, Function fuzz) {
  const double seconds = count > 1 ? std::atof(arguments[1]) : 5;
  const uint64_t seed =
      count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 1;
  int cases[2];
  std::thread other([&] { cases[1] = fuzz(seed + 1000000000, seconds); });
  cases[0] = fuzz(seed, seconds);
  other.join();
  return cases[0] + cases[1];
}

}  // namespace

#endif  // BITSEARCH_TESTS_FUZZ_H_
