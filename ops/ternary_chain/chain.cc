#include "ternary_chain/chain.h"

#include <algorithm>
#include <cstring>

#include "ternary_matmul/linear.h"

namespace bitsearch {
namespace {

constexpr int64_t kRows = 128;        // that go through all layers together
constexpr int64_t kBytes = 1 << 20;   // of them between two layers
constexpr int64_t kRowsOfATask = 64;  // of hidden layers, if that is all

std::vector<ActivationKernel>& Table() {
  static std::vector<ActivationKernel> table;
  return table;
}

// Every task is done here and now.
const Pool kSerial{
    nullptr, [](void*, void (*body)(void*, size_t), size_t total, void* data) {
      for (size_t i = 0; i < total; ++i) body(data, i);
    }};

template <class Body>
void InParts(const Pool& pool, int64_t m, int64_t size, Body body) {
  const int64_t parts = DivideUp(m, size);
  auto task = [&](size_t i) {
    const int64_t begin = static_cast<int64_t>(i) * size;
    body(Range{begin, std::min(begin + size, m)});
  };
  if (parts < 2) {
    if (m > 0) task(0);
    return;
  }
  pool.run(
      pool.context,
      [](void* data, size_t i) { (*static_cast<decltype(task)*>(data))(i); },
      parts, &task);
}

// Memory of this thread for rows between layers; it only grows.
float* Memory(int index, int64_t count) {
  thread_local std::vector<float> memory[3];
  if (static_cast<int64_t>(memory[index].size()) < count)
    memory[index].resize(count);
  return memory[index].data();
}

// All layers but the last, each with what stands behind it.
void RunHidden(const Chain& chain, const float* x, int64_t m, float* hidden) {
  for (int64_t i = 0; i + 1 < chain.count; ++i) {
    const Link& link = chain.links[i];
    const int64_t count = m * link.layer.n;
    float* out = i + 2 == chain.count ? hidden : Memory(i % 2, count);
    Run(*link.kernel, link.layer, x, m, chain.q_max, kSerial, out);
    if (link.gain)
      chain.normal_kernel->normalize(out, m, link.layer.n, link.gain,
                                     link.shift, chain.epsilon, out);
    chain.activation_kernel->apply(chain.activation, out, count);
    x = out;
  }
}

// So many rows that what lies between two layers stays in L2.
int64_t RowsTogether(const Chain& chain) {
  int64_t widest = 1;
  for (int64_t i = 0; i + 1 < chain.count; ++i)
    widest = std::max(widest, chain.links[i].layer.n);
  const int64_t fit = kBytes / (4 * widest) / kRowsOfATask * kRowsOfATask;
  return std::clamp(fit, kRowsOfATask, kRows);
}

}  // namespace

ActivationRegistration::ActivationRegistration(const ActivationKernel& kernel) {
  Table().push_back(kernel);
}

const ActivationKernel& ChooseActivationKernel() {
  for (const Kernel* kernel = &ChooseKernel();; ++kernel)  // "portable" is last
    for (const ActivationKernel& activation : Table())
      if (kernel->usable() && !std::strcmp(activation.name, kernel->name))
        return activation;
}

void Run(const Chain& chain, const float* x, int64_t m, const Pool& pool,
         float* y) {
  const Link& last = chain.last();
  const int64_t k = chain.links[0].layer.k, width = last.layer.k;
  const int64_t together = RowsTogether(chain);
  if (m <= together) {
    // Few rows: the last layer, often the widest, is split by its outputs.
    float* hidden = Memory(2, m * width);
    InParts(pool, m, kRowsOfATask, [&](Range rows) {
      RunHidden(chain, x + rows.begin * k, rows.end - rows.begin,
                hidden + rows.begin * width);
    });
    Run(*last.kernel, last.layer, hidden, m, chain.q_max, pool, y);
    return;
  }
  // Even, so that two threads share alike; kernels like rows by four.
  int64_t parts = DivideUp(m, together);
  parts += parts % 2;
  InParts(pool, m, RoundUp(DivideUp(m, parts), 4), [&](Range rows) {
    const int64_t count = rows.end - rows.begin;
    float* hidden = Memory(2, count * width);
    RunHidden(chain, x + rows.begin * k, count, hidden);
    Run(*last.kernel, last.layer, hidden, count, chain.q_max, kSerial,
        y + rows.begin * last.layer.n);
  });
}

}  // namespace bitsearch
