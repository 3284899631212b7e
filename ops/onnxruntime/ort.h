// What an operator needs of onnxruntime's C API. Errors are exceptions inside
// the library and statuses at its border (Guard).
#ifndef BITSEARCH_ONNXRUNTIME_ORT_H_
#define BITSEARCH_ONNXRUNTIME_ORT_H_

#include <onnxruntime_c_api.h>

#include <cstdint>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "parallel.h"

namespace bitsearch {

// The oldest API with KernelContext_ParallelFor; newer runtimes provide it too.
constexpr uint32_t kApiVersion = 17;

// Set once, when the library is first registered.
extern const OrtApi* api;

// Throws what onnxruntime reports.
void Check(OrtStatus* status);

// Throws std::invalid_argument "name: found ..., expected ...".
[[noreturn]] void Refuse(const std::string& name, const std::string& found,
                         const std::string& expected);

using Shape = std::vector<int64_t>;  // -1 where it is not known yet
std::string Describe(const Shape& shape);

struct Tensor {
  const OrtValue* value;
  Shape shape;

  int64_t size() const;
  template <class T>
  const T* data() const {
    void* data;
    Check(api->GetTensorMutableData(const_cast<OrtValue*>(value), &data));
    return static_cast<const T*>(data);
  }
};

// A node when its session is created.
class NodeInfo {
 public:
  explicit NodeInfo(const OrtKernelInfo* info) : info_(info) {}
  std::string name() const;
  std::optional<int64_t> integer(const char* attribute) const;
  std::optional<float> number(const char* attribute) const;
  std::optional<std::string> text(const char* attribute) const;
  std::optional<Tensor> constant(size_t input) const;
  std::optional<Shape> shape(size_t input) const;  // as far as it is known
  bool has(size_t input) const;

 private:
  void RefuseIfPresent(const char* attribute, const char* expected) const;
  const OrtKernelInfo* info_;
};

// One run of a node.
class Call {
 public:
  explicit Call(OrtKernelContext* context) : context_(context) {}
  // The shape is written into `memory`, for calls that allocate nothing.
  std::optional<Tensor> input(size_t index, Shape memory = {}) const;
  // Null for an optional output that nobody reads.
  float* output(const Shape& shape, size_t index = 0) const;
  Pool pool() const;

 private:
  OrtKernelContext* context_;
};

// Runs body() and turns what it throws into a status that names the operator.
template <class Body>
OrtStatus* Guard(const std::string& name, Body body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const std::invalid_argument& error) {
    return api->CreateStatus(ORT_INVALID_ARGUMENT,
                             (name + ": " + error.what()).c_str());
  } catch (const std::exception& error) {
    return api->CreateStatus(ORT_FAIL, (name + ": " + error.what()).c_str());
  }
}

constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;

// A tensor that an operator takes or gives.
struct Slot {
  ONNXTensorElementDataType type = kFloat;
  bool optional = false;
};
inline OrtCustomOpInputOutputCharacteristic Presence(const Slot& slot) {
  return slot.optional ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
}

// The operator of a class with kName, kInputs and kOutputs, arrays of Slot, a
// constructor from NodeInfo, which checks and prepares, and Compute(Call)
// const.
template <class Op>
const OrtCustomOp& CustomOp() {
  struct Node {
    std::string title;
    Op op;
  };
  static const OrtCustomOp custom = [] {
    OrtCustomOp op{};
    op.version = kApiVersion;
    op.GetName = [](const OrtCustomOp*) -> const char* { return Op::kName; };
    op.GetExecutionProviderType = [](const OrtCustomOp*) {
      return "CPUExecutionProvider";
    };
    op.GetInputTypeCount = [](const OrtCustomOp*) {
      return std::size(Op::kInputs);
    };
    op.GetOutputTypeCount = [](const OrtCustomOp*) {
      return std::size(Op::kOutputs);
    };
    op.GetInputType = [](const OrtCustomOp*, size_t index) {
      return Op::kInputs[index].type;
    };
    op.GetOutputType = [](const OrtCustomOp*, size_t index) {
      return Op::kOutputs[index].type;
    };
    op.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
      return Presence(Op::kInputs[index]);
    };
    op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t index) {
      return Presence(Op::kOutputs[index]);
    };
    op.GetInputMemoryType = [](const OrtCustomOp*, size_t) {
      return OrtMemTypeDefault;
    };
    op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
    op.GetEndVersion = [](const OrtCustomOp*) { return 1; };
    op.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi*,
                           const OrtKernelInfo* info, void** kernel) {
      const NodeInfo node(info);
      const std::string title =
          std::string(Op::kName) + " '" + node.name() + "'";
      return Guard(title, [&] { *kernel = new Node{title, Op(node)}; });
    };
    op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      const auto* node = static_cast<const Node*>(kernel);
      return Guard(node->title, [&] { node->op.Compute(Call(context)); });
    };
    op.KernelDestroy = [](void* kernel) { delete static_cast<Node*>(kernel); };
    return op;
  }();
  return custom;
}

}  // namespace bitsearch

#endif  // BITSEARCH_ONNXRUNTIME_ORT_H_
