// com.bithep::MessagePassing for onnxruntime: checks and runs.
#include "message_passing/op.h"

#include <cmath>

#include "message_passing/messages.h"
#include "onnxruntime/ort.h"

namespace bitsearch {
namespace {

enum Input {
  kPt,
  kFeatures,
  kPosition,
  kFirst,                // its weight, scale and bias
  kSecond = kFirst + 3,  // likewise
};

float RequireNumber(const NodeInfo& node, const char* attribute, float low,
                    float high, const char* expected) {
  const std::optional<float> value = node.number(attribute);
  if (!value) Refuse(attribute, "no such attribute", expected);
  if (!(*value >= low && *value <= high))
    Refuse(attribute, std::to_string(*value), expected);
  return *value;
}

float RequireQMax(const NodeInfo& node, const char* attribute) {
  const char* expected = "a whole number from 0 to 128";
  const float value = RequireNumber(node, attribute, 0, 128, expected);
  if (value != std::floor(value))
    Refuse(attribute, std::to_string(value), expected);
  return value;
}

bool RequireFlag(const NodeInfo& node, const char* attribute) {
  const std::optional<int64_t> value = node.integer(attribute);
  if (!value) Refuse(attribute, "no such attribute", "0 or 1");
  if (*value != 0 && *value != 1)
    Refuse(attribute, std::to_string(*value), "0 or 1");
  return *value == 1;
}

void Require(const char* name, const Tensor& tensor, const Shape& expected) {
  if (tensor.shape != expected)
    Refuse(name, Describe(tensor.shape), Describe(expected));
}

class MessagePassing {
 public:
  static constexpr char kName[] = "MessagePassing";
  static constexpr Slot kInputs[] = {{}, {}, {}, {}, {}, {}, {}, {}, {}};
  static constexpr Slot kOutputs[] = {{}};

  explicit MessagePassing(const NodeInfo& node)
      : kernel_(ChooseMessageKernel()),
        squared_radius_(RequireNumber(node, "squared_radius", 0, HUGE_VALF,
                                      "a number from 0 on")),
        weighted_(RequireFlag(node, "weighted")),
        slope_(RequireNumber(node, "slope", 0, 1, "a number from 0 to 1")),
        act_qmax_{RequireQMax(node, "act_qmax1"),
                  RequireQMax(node, "act_qmax2")} {}

  void Compute(const Call& call) const {
    const Tensor pt = *call.input(kPt), features = *call.input(kFeatures),
                 position = *call.input(kPosition);
    if (pt.shape.size() != 2)
      Refuse("pt", Describe(pt.shape), "shape (jets, particles)");
    const int64_t jets = pt.shape[0], particles = pt.shape[1];
    if (features.shape.size() != 3 || features.shape[0] != jets ||
        features.shape[1] != particles)
      Refuse("features", Describe(features.shape),
             Describe({jets, particles, -1}));
    Require("position", position, {jets, particles, 2});
    const int64_t size = features.shape[2];
    const MessageLayer first =
        Read(call, kFirst, {"W1", "scale1", "bias1"}, 3 * size + 2, 0);
    const MessageLayer second =
        Read(call, kSecond, {"W2", "scale2", "bias2"}, first.outputs, 1);
    float* y = call.output({jets, particles, second.outputs});
    if (!jets || !particles) return;
    Run(kernel_, {squared_radius_, weighted_, slope_, size, first, second},
        {pt.data<float>(), features.data<float>(), position.data<float>(),
         particles, y},
        jets, call.pool());
  }

 private:
  MessageLayer Read(const Call& call, size_t input,
                    const char* const (&names)[3], int64_t inputs,
                    int index) const {
    const Tensor weight = *call.input(input), scale = *call.input(input + 1),
                 bias = *call.input(input + 2);
    if (weight.shape.size() != 2 || weight.shape[1] != inputs ||
        weight.shape[0] == 0)
      Refuse(names[0], Describe(weight.shape), Describe({-1, inputs}));
    const int64_t outputs = weight.shape[0];
    Require(names[1], scale, {outputs});
    Require(names[2], bias, {outputs});
    return {weight.data<float>(),
            scale.data<float>(),
            bias.data<float>(),
            inputs,
            outputs,
            act_qmax_[index]};
  }

  const MessageKernel& kernel_;
  const float squared_radius_;
  const bool weighted_;
  const float slope_;
  const float act_qmax_[2];
};

}  // namespace

const OrtCustomOp& MessagePassingOp() { return CustomOp<MessagePassing>(); }

}  // namespace bitsearch
