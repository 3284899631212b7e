// Holds the message-passing kernel of every usable instruction set to the
// portable one, bit for bit, on random settings, shapes, values, alignments and
// threads. Usage: fuzz_messages SECONDS [SEED]
#include <array>
#include <chrono>
#include <string>
#include <vector>

#include "fuzz.h"
#include "message_passing/messages.h"

namespace {

using namespace bitsearch;

// What BITSEARCH_KERNEL chooses for each usable kernel, "portable" last.
std::vector<const MessageKernel*> MessageKernels() {
  std::vector<const MessageKernel*> found;
  for (const Kernel& kernel : Kernels()) {
    if (!kernel.usable()) continue;
    setenv("BITSEARCH_KERNEL", kernel.name, 1);
    const MessageKernel* own = &ChooseMessageKernel();
    if (found.empty() || found.back() != own) found.push_back(own);
  }
  unsetenv("BITSEARCH_KERNEL");
  return found;
}

Buffer<float> Values(Random& random, int64_t count) {
  Buffer<float> values(count);
  for (int64_t i = 0; i < count; ++i) values.data[i] = Value(random);
  return values;
}

struct Layer {
  int64_t inputs, outputs;
  float act_qmax;
  Buffer<float> weight, scale, bias;

  Layer(Random& random, int64_t inputs)
      : inputs(inputs),
        outputs(Pick(random, 1, 22)),
        act_qmax(std::array{0.f, 1.f, 127.f, 128.f}[Pick(random, 0, 3)]),
        weight(Values(random, inputs * outputs)),
        scale(Values(random, outputs)),
        bias(Values(random, outputs)) {
    for (int64_t i = 0; act_qmax && i < inputs * outputs; ++i)
      weight.data[i] = static_cast<float>(Pick(random, -1, 1));
  }

  MessageLayer Read() const {
    return {weight.data, scale.data, bias.data, inputs, outputs, act_qmax};
  }
};

struct Case {
  int64_t jets, particles, features;
  Layer first, second;
  Messages messages;
  Buffer<float> pt, h, position;

  explicit Case(Random& random)
      : jets(Pick(random, 0, 4)),
        particles(Pick(random, 0, 70)),
        features(Pick(random, 0, 12)),
        first(random, 3 * features + 2),
        second(random, first.outputs),
        messages{std::array{0.f, 0.1f, 4.f, INFINITY}[Pick(random, 0, 3)],
                 Pick(random, 0, 1) == 1,
                 std::array{0.f, 0.01f, 1.f}[Pick(random, 0, 2)],
                 features,
                 first.Read(),
                 second.Read()},
        pt(Values(random, jets * particles)),
        h(Values(random, jets * particles * features)),
        position(Values(random, jets * particles * 2)) {
    for (int64_t i = 0; i < jets * particles; ++i)
      if (!Pick(random, 0, 4)) pt.data[i] = 0;
  }

  int64_t size() const { return jets * particles * second.outputs; }

  Buffer<float> Pass(const MessageKernel& kernel) const {
    Buffer<float> y(size());
    Run(kernel, messages, {pt.data, h.data, position.data, particles, y.data},
        jets, {nullptr, RunTasks});
    return y;
  }
};

// Cases until the time is over; the number of them, or exits.
int Fuzz(const std::vector<const MessageKernel*>& kernels, uint64_t seed,
         double seconds) {
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  int cases = 0;
  for (; std::chrono::steady_clock::now() < end; ++cases) {
    Random random(seed + cases);
    const Case given(random);
    const Buffer<float> expected = given.Pass(*kernels.back());
    for (const MessageKernel* kernel : kernels) {
      const Buffer<float> found = given.Pass(*kernel);
      for (int64_t i = 0; i < given.size(); ++i)
        if (!Same(found.data[i], expected.data[i])) {
          std::printf(
              "%s, seed %llu: found %.9g at %lld, expected %.9g\n",
              kernel->name, static_cast<unsigned long long>(seed + cases),
              found.data[i], static_cast<long long>(i), expected.data[i]);
          std::exit(1);
        }
    }
  }
  return cases;
}

}  // namespace

int main(int count, char** arguments) {
  const auto kernels = MessageKernels();
  const int cases =
      FuzzInTwoThreads(count, arguments, [&](uint64_t seed, double seconds) {
        return Fuzz(kernels, seed, seconds);
      });
  std::string ran;
  for (const MessageKernel* kernel : kernels)
    ran += std::string(" ") + kernel->name;
  std::printf("%d cases of messages, no difference:%s\n", cases, ran.c_str());
}
