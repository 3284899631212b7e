// com.bithep::TernaryMatMul for onnxruntime: checks and runs.
#include "ternary_matmul/op.h"

#include "ternary_matmul/node_layer.h"

namespace bitsearch {
namespace {

enum Input { kX, kW };

class TernaryMatMul {
 public:
  static constexpr char kName[] = "TernaryMatMul";
  static constexpr Slot kInputs[] = {
      {}, {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8}, {}, {kFloat, true}};
  static constexpr Slot kOutputs[] = {{}};

  explicit TernaryMatMul(const NodeInfo& node)
      : q_max_(RequireQMax(node)), layer_(node, kW, RequireK(node, "K"), "") {
    if (const auto x = node.shape(kX); x && !x->empty() && x->back() >= 0)
      CheckX(*x);
  }

  void Compute(const Call& call) const {
    thread_local Shape shape;
    Tensor x = *call.input(kX, std::move(shape));
    CheckX(x.shape);
    NodeLayer::Memory memory;
    const Layer layer = layer_.layer(call, &memory);
    const int64_t m = x.size() / layer.k;
    x.shape.back() = layer.n;
    float* y = call.output(x.shape);
    shape = std::move(x.shape);
    Run(layer_.kernel(), layer, x.data<float>(), m, q_max_, call.pool(), y);
  }

 private:
  void CheckX(const Shape& shape) const {
    if (shape.empty() || shape.back() != layer_.k())
      Refuse("X", Describe(shape),
             "shape (..., " + std::to_string(layer_.k()) + ")");
  }

  const float q_max_;
  const NodeLayer layer_;
};

}  // namespace

const OrtCustomOp& TernaryMatMulOp() { return CustomOp<TernaryMatMul>(); }

}  // namespace bitsearch
