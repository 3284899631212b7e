// com.bithep::TernaryChain2 to TernaryChain8 for onnxruntime: checks and runs.
#include "ternary_chain/op.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "ternary_chain/chain.h"
#include "ternary_matmul/node_layer.h"

namespace bitsearch {
namespace {

constexpr const char* kNames[] = {
    "TernaryChain2", "TernaryChain3", "TernaryChain4", "TernaryChain5",
    "TernaryChain6", "TernaryChain7", "TernaryChain8"};
constexpr const char* kFunctions[] = {"relu", "leaky-relu", "silu", "gelu"};

Activation RequireActivation(const NodeInfo& node) {
  const std::string expected = "'relu', 'leaky-relu', 'silu' or 'gelu'";
  const std::optional<std::string> word = node.text("activation");
  if (!word) Refuse("activation", "no such attribute", expected);
  const auto found =
      std::find(std::begin(kFunctions), std::end(kFunctions), *word);
  if (found == std::end(kFunctions))
    Refuse("activation", "'" + *word + "'", expected);
  const float alpha = node.number("alpha").value_or(0.01f);
  if (!std::isfinite(alpha))
    Refuse("alpha", std::to_string(alpha), "a finite number");
  return {static_cast<Function>(found - kFunctions), alpha};
}

// Functions of models have a fixed number of inputs, so a name has one, too.
template <size_t kLayers>
class TernaryChain {
 public:
  static constexpr const char* kName = kNames[kLayers - 2];
  static constexpr std::array<Slot, 1 + 3 * kLayers> kInputs = [] {
    std::array<Slot, 1 + 3 * kLayers> slots{};
    for (size_t i = 0; i < kLayers; ++i)
      slots[1 + 3 * i].type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    return slots;
  }();
  static constexpr Slot kOutputs[] = {{}};

  explicit TernaryChain(const NodeInfo& node)
      : q_max_(RequireQMax(node)),
        activation_kernel_(ChooseActivationKernel()),
        activation_(RequireActivation(node)) {
    std::array<int64_t, kLayers> k;
    for (size_t i = 0; i < kLayers; ++i)
      k[i] = RequireK(node, "K" + std::to_string(i));
    layers_.reserve(kLayers);
    for (size_t i = 0; i < kLayers; ++i)
      layers_.emplace_back(
          node, 1 + 3 * i, k[i], std::to_string(i),
          i + 1 < kLayers ? std::optional(k[i + 1]) : std::nullopt);
    if (const auto x = node.shape(0); x && !x->empty() && x->back() >= 0)
      CheckX(*x);
  }

  void Compute(const Call& call) const {
    thread_local Shape shape;
    Tensor x = *call.input(0, std::move(shape));
    CheckX(x.shape);
    std::array<NodeLayer::Memory, kLayers> memory;
    std::array<Link, kLayers> links;
    for (size_t i = 0; i < kLayers; ++i)
      links[i] = {&layers_[i].kernel(), layers_[i].layer(call, &memory[i])};
    const Chain chain{links.data(), kLayers, q_max_, &activation_kernel_,
                      activation_};
    const int64_t m = x.size() / links[0].layer.k;
    x.shape.back() = chain.last().layer.n;
    float* y = call.output(x.shape);
    shape = std::move(x.shape);
    Run(chain, x.data<float>(), m, call.pool(), y);
  }

 private:
  void CheckX(const Shape& shape) const {
    if (shape.empty() || shape.back() != layers_[0].k())
      Refuse("X", Describe(shape),
             "shape (..., " + std::to_string(layers_[0].k()) + ")");
  }

  const float q_max_;
  const ActivationKernel& activation_kernel_;
  const Activation activation_;
  std::vector<NodeLayer> layers_;
};

template <size_t... kLess>
std::vector<const OrtCustomOp*> All(std::index_sequence<kLess...>) {
  return {&CustomOp<TernaryChain<kLess + 2>>()...};
}

}  // namespace

const std::vector<const OrtCustomOp*>& TernaryChainOps() {
  static const std::vector<const OrtCustomOp*> ops =
      All(std::make_index_sequence<std::size(kNames)>());
  return ops;
}

}  // namespace bitsearch
