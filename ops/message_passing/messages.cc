// The choice of a kernel and the split of jets over threads.
#include "message_passing/messages.h"

#include <cstring>

#include "ternary_matmul/kernel.h"

namespace bitsearch {
namespace {

std::vector<MessageKernel>& Table() {
  static std::vector<MessageKernel> table;
  return table;
}

}  // namespace

MessageLayer::MessageLayer(const float* weight, const float* scale,
                           const float* bias, int64_t inputs, int64_t outputs,
                           float act_qmax)
    : inputs(inputs),
      outputs(outputs),
      act_qmax(act_qmax),
      weight(RoundUp(outputs, kTogether) * inputs),
      scale(scale),
      bias(bias) {
  for (int64_t n = 0; n < outputs; ++n)
    for (int64_t k = 0; k < inputs; ++k)
      this->weight[(n / kTogether * inputs + k) * kTogether + n % kTogether] =
          weight[n * inputs + k];
}

MessageRegistration::MessageRegistration(const MessageKernel& kernel) {
  Table().push_back(kernel);
}

const MessageKernel& ChooseMessageKernel() {
  for (const Kernel* kernel = &ChooseKernel();; ++kernel)  // "portable" is last
    for (const MessageKernel& own : Table())
      if (kernel->usable() && !std::strcmp(own.name, kernel->name)) return own;
}

void Run(const MessageKernel& kernel, const Messages& messages,
         const Jet& first, int64_t jets, const Pool& pool) {
  auto task = [&](int64_t i) {
    thread_local std::vector<float> memory;
    memory.resize(kernel.memory(messages, first.particles));
    Jet jet = first;
    jet.pt += i * jet.particles;
    jet.features += i * jet.particles * messages.features;
    jet.position += i * jet.particles * 2;
    jet.y += i * jet.particles * messages.second.outputs;
    kernel.pass(messages, jet, memory.data());
  };
  if (jets == 1) return task(0);
  pool.run(
      pool.context,
      [](void* data, size_t i) { (*static_cast<decltype(task)*>(data))(i); },
      jets, &task);
}

}  // namespace bitsearch
