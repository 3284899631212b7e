#include "ternary_matmul/linear.h"

#include <algorithm>
#include <stdexcept>

namespace bitsearch {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kScratchBytes = 1 << 20;  // of quantised rows: stays in L2
constexpr int64_t kSerialWork = 1 << 20;    // products that one thread does
constexpr int64_t kTasks = 16;              // enough for the threads to share

uint8_t* Align(std::vector<uint8_t>& bytes) {
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  return bytes.data() + (RoundUp(address, kAlignment) - address);
}

// Calls of one thread share it; it only grows, to little over kScratchBytes
// unless a single block of rows is larger.
Activations Scratch(int64_t rows, int64_t stride, float q_max) {
  thread_local std::vector<uint8_t> bytes;
  const int64_t q_bytes = RoundUp(rows * stride, kAlignment);
  const size_t needed = q_bytes + rows * 8 + kAlignment;
  if (bytes.size() < needed) bytes.resize(needed);
  uint8_t* q = Align(bytes);
  auto* sum = reinterpret_cast<int32_t*>(q + q_bytes);
  return {reinterpret_cast<int8_t*>(q), sum,
          reinterpret_cast<float*>(sum + rows), stride,
          static_cast<int32_t>(q_max)};
}

template <class Body>
void ParallelFor(const Pool& pool, int64_t total, int64_t work, Body body) {
  if (work < kSerialWork || total < 2) {
    for (int64_t i = 0; i < total; ++i) body(i);
    return;
  }
  auto call = [](void* data, size_t i) { (*static_cast<Body*>(data))(i); };
  pool.run(pool.context, call, total, &body);
}

Range Part(int64_t index, int64_t size, int64_t total) {
  return {index * size, std::min((index + 1) * size, total)};
}

}  // namespace

void CheckCodes(const uint8_t* w, int64_t n, int64_t k,
                const std::string& name) {
  const int64_t row_bytes = DivideUp(k, 4);
  for (int64_t i = 0; i < n * row_bytes; ++i) {
    const int bad = w[i] & (w[i] >> 1) & 0x55;
    if (!bad) continue;
    const int field = bad & 1 ? 0 : bad & 4 ? 1 : bad & 16 ? 2 : 3;
    throw std::invalid_argument(name + ": found the code 3 at output " +
                                std::to_string(i / row_bytes) + ", input " +
                                std::to_string(i % row_bytes * 4 + field) +
                                ", expected 0, 1 or 2");
  }
}

Weights::Weights(const Kernel& kernel, const uint8_t* w, int64_t n, int64_t k)
    : bytes_(kernel.packed_bytes(n, k) + kAlignment) {
  uint8_t* packed = Align(bytes_);
  kernel.pack(w, n, k, packed);
  aligned_ = packed;
}

std::vector<float> PerOutput(const Kernel& kernel, const float* values,
                             int64_t count, int64_t n) {
  std::vector<float> padded(RoundUp(n, kernel.n_group));
  for (int64_t i = 0; i < n; ++i) padded[i] = values[count == 1 ? 0 : i];
  return padded;
}

void Run(const Kernel& kernel, const Layer& layer, const float* x, int64_t m,
         float q_max, const Pool& pool, float* y) {
  const int64_t stride = RoundUp(layer.k, kernel.k_align);
  const int64_t groups = DivideUp(layer.n, kernel.n_group);
  const int64_t chunk =
      std::max(kScratchBytes / stride / kernel.m_block, int64_t{1}) *
      kernel.m_block;
  const Activations scratch = Scratch(std::min(m, chunk), stride, q_max);
  for (int64_t begin = 0; begin < m; begin += chunk) {
    const int64_t rows = std::min(chunk, m - begin);
    const int64_t blocks = DivideUp(rows, kernel.m_block);
    ParallelFor(pool, blocks, rows * layer.k * 8, [&](int64_t i) {
      const Range part = Part(i, kernel.m_block, rows);
      const Activations out{scratch.q + part.begin * stride,
                            scratch.sum + part.begin, scratch.step + part.begin,
                            stride, scratch.largest};
      kernel.quantize(x + (begin + part.begin) * layer.k, part.end - part.begin,
                      layer.k, q_max, out);
    });
    // Even, so that two threads share alike.
    int64_t parts = std::max(
        std::min(kTasks / blocks, groups / kernel.task_groups), int64_t{1});
    parts -= parts > 1 && parts % 2;
    const int64_t size = DivideUp(groups, parts);
    ParallelFor(pool, blocks * parts, rows * layer.n * layer.k, [&](int64_t i) {
      kernel.multiply(layer, scratch, Part(i / parts, kernel.m_block, rows),
                      Part(i % parts, size, groups), y + begin * layer.n);
    });
  }
}

}  // namespace bitsearch
