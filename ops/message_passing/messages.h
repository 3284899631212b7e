// Message passing: the seam between onnxruntime and arithmetic. Equation
// numbers are those of README.md.
#ifndef BITSEARCH_MESSAGE_PASSING_MESSAGES_H_
#define BITSEARCH_MESSAGE_PASSING_MESSAGES_H_

#include <vector>

#include "parallel.h"

namespace bitsearch {

constexpr int kTogether = 4;   // outputs that are summed at once
constexpr int kPartials = 16;  // partial sums over senders, Eq. (35)

// A linear layer, low-bit with Q = act_qmax, or in float where that is 0.
class MessageLayer {
 public:
  // weight [outputs][inputs], scale and bias [outputs].
  MessageLayer(const float* weight, const float* scale, const float* bias,
               int64_t inputs, int64_t outputs, float act_qmax);

  int64_t inputs, outputs;
  float act_qmax;
  std::vector<float> weight;  // [blocks of outputs][inputs][kTogether]
  const float *scale, *bias;
};

struct Messages {
  float squared_radius;
  bool weighted;  // by the senders' pT, else all the same
  float slope;
  int64_t features;
  MessageLayer first, second;
};

// One jet.
struct Jet {
  const float* pt;        // [particles]
  const float* features;  // [particles][features]
  const float* position;  // [particles][2]
  int64_t particles;
  float* y;  // [particles][second.outputs]
};

// One vector width. A file kernel_<isa>.cc fills one in and registers it.
struct MessageKernel {
  const char* name;  // of the Kernel whose processors run it
  // The scratch memory that `pass` needs, in floats.
  int64_t (*memory)(const Messages& messages, int64_t particles);
  void (*pass)(const Messages& messages, const Jet& jet, float* memory);
};

struct MessageRegistration {
  explicit MessageRegistration(const MessageKernel& kernel);
};

// That of ChooseKernel(), or of the best kernel below that has one.
const MessageKernel& ChooseMessageKernel();

// All jets; `first` is the first of them.
void Run(const MessageKernel& kernel, const Messages& messages,
         const Jet& first, int64_t jets, const Pool& pool);

}  // namespace bitsearch

#endif  // BITSEARCH_MESSAGE_PASSING_MESSAGES_H_
