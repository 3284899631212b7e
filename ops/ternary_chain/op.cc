// com.bithep::TernaryChain2 to TernaryChain8 and TernaryNormChain2 to
// TernaryNormChain8 for onnxruntime: checks and runs.
#include "ternary_chain/op.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "ternary_chain/chain.h"
#include "ternary_matmul/node_layer.h"

namespace bitsearch {
namespace {

constexpr const char* kNames[][7] = {
    {"TernaryChain2", "TernaryChain3", "TernaryChain4", "TernaryChain5",
     "TernaryChain6", "TernaryChain7", "TernaryChain8"},
    {"TernaryNormChain2", "TernaryNormChain3", "TernaryNormChain4",
     "TernaryNormChain5", "TernaryNormChain6", "TernaryNormChain7",
     "TernaryNormChain8"}};
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

float RequireEpsilon(const NodeInfo& node) {
  const float epsilon = node.number("epsilon").value_or(1e-5f);
  if (!(epsilon > 0 && std::isfinite(epsilon)))
    Refuse("epsilon", std::to_string(epsilon), "a positive number");
  return epsilon;
}

// Functions of models have a fixed number of inputs, so a name has one, too.
template <size_t kLayers, bool kNormal>
class TernaryChain {
  static constexpr size_t kOfALayer = kNormal ? 5 : 3;
  static constexpr size_t kCount = 1 + kOfALayer * kLayers - (kNormal ? 2 : 0);

 public:
  static constexpr const char* kName = kNames[kNormal][kLayers - 2];
  static constexpr std::array<Slot, kCount> kInputs = [] {
    std::array<Slot, kCount> slots{};
    for (size_t i = 0; i < kLayers; ++i)
      slots[1 + kOfALayer * i].type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    return slots;
  }();
  static constexpr Slot kOutputs[] = {{}};

  explicit TernaryChain(const NodeInfo& node)
      : q_max_(RequireQMax(node)),
        activation_kernel_(ChooseActivationKernel()),
        activation_(RequireActivation(node)),
        normal_kernel_(ChooseReproducibleKernel()),
        epsilon_(kNormal ? RequireEpsilon(node) : 0) {
    std::array<int64_t, kLayers> k;
    for (size_t i = 0; i < kLayers; ++i)
      k[i] = RequireK(node, "K" + std::to_string(i));
    layers_.reserve(kLayers);
    for (size_t i = 0; i < kLayers; ++i)
      layers_.emplace_back(
          node, 1 + kOfALayer * i, k[i], std::to_string(i),
          i + 1 < kLayers ? std::optional(k[i + 1]) : std::nullopt);
    for (size_t i = 0; kNormal && i + 1 < kLayers; ++i)
      for (const size_t role : {0, 1})
        if (const auto found = node.constant(Norm(i, role)))
          CheckVector(*found, i, role);
    if (const auto x = node.shape(0); x && !x->empty() && x->back() >= 0)
      CheckX(*x);
  }

  void Compute(const Call& call) const {
    thread_local Shape shape;
    Tensor x = *call.input(0, std::move(shape));
    CheckX(x.shape);
    std::array<NodeLayer::Memory, kLayers> memory;
    std::array<Link, kLayers> links;
    for (size_t i = 0; i < kLayers; ++i) {
      const bool normal = kNormal && i + 1 < kLayers;
      links[i] = {&layers_[i].kernel(), layers_[i].layer(call, &memory[i]),
                  normal ? Vector(call, i, 0) : nullptr,
                  normal ? Vector(call, i, 1) : nullptr};
    }
    const Chain chain{
        links.data(), kLayers,         q_max_,  &activation_kernel_,
        activation_,  &normal_kernel_, epsilon_};
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

  // The input that is gain (role 0) or shift (1) behind layer i.
  static constexpr size_t Norm(size_t i, size_t role) {
    return 1 + kOfALayer * i + 3 + role;
  }

  void CheckVector(const Tensor& found, size_t i, size_t role) const {
    const Shape expected{layers_[i + 1].k()};
    if (found.shape != expected)
      Refuse((role ? "shift" : "gain") + std::to_string(i),
             Describe(found.shape), Describe(expected));
  }

  const float* Vector(const Call& call, size_t i, size_t role) const {
    thread_local Shape shape;
    Tensor found = *call.input(Norm(i, role), std::move(shape));
    CheckVector(found, i, role);
    const float* data = found.data<float>();
    shape = std::move(found.shape);
    return data;
  }

  const float q_max_;
  const ActivationKernel& activation_kernel_;
  const Activation activation_;
  const ReproducibleKernel& normal_kernel_;
  const float epsilon_;
  std::vector<NodeLayer> layers_;
};

template <size_t... kLess>
std::vector<const OrtCustomOp*> All(std::index_sequence<kLess...>) {
  return {&CustomOp<TernaryChain<kLess + 2, false>>()...,
          &CustomOp<TernaryChain<kLess + 2, true>>()...};
}

}  // namespace

const std::vector<const OrtCustomOp*>& TernaryChainOps() {
  static const std::vector<const OrtCustomOp*> ops =
      All(std::make_index_sequence<std::size(kNames[0])>());
  return ops;
}

}  // namespace bitsearch
