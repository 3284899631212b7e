#include "ternary_matmul/node_layer.h"

#include <cmath>
#include <utility>

namespace bitsearch {
namespace {

constexpr int64_t kMaxK = (1 << 24) - 1;  // 128 * K fits an int32
enum Offset { kW, kScale, kBias };

std::string Size(int64_t n) { return n < 0 ? "N" : std::to_string(n); }

}  // namespace

int64_t RequireK(const NodeInfo& node, const std::string& name) {
  const std::optional<int64_t> k = node.integer(name.c_str());
  const std::string expected = "1 to " + std::to_string(kMaxK);
  if (!k) Refuse(name, "no such attribute", expected);
  if (*k < 1 || *k > kMaxK) Refuse(name, std::to_string(*k), expected);
  return *k;
}

float RequireQMax(const NodeInfo& node) {
  const float q_max = node.number("act_qmax").value_or(127);
  if (!(q_max >= 1 && q_max <= 128 && q_max == std::floor(q_max)))
    Refuse("act_qmax", std::to_string(q_max), "a whole number from 1 to 128");
  return q_max;
}

NodeLayer::NodeLayer(const NodeInfo& node, size_t first, int64_t k,
                     std::string suffix, std::optional<int64_t> n)
    : kernel_(&ChooseKernel()),
      first_(first),
      k_(k),
      suffix_(std::move(suffix)),
      expected_(n.value_or(-1)) {
  if (const auto w = node.constant(first_ + kW)) {
    n_ = CheckW(*w);
    kernel_ = &ChooseKernel(n_, k_);
    weights_ = Pack(*w, n_);
  }
  const auto scale = node.constant(first_ + kScale);
  const auto bias = node.constant(first_ + kBias);
  if (scale) CheckScale(*scale, n_);
  if (bias) CheckBias(*bias, n_);
  if (n_ < 0) return;
  if (scale) scale_ = Scale(*scale, n_);
  if (bias || !node.has(first_ + kBias)) bias_ = Bias(bias, n_);
}

Layer NodeLayer::layer(const Call& call, Memory* memory) const {
  int64_t n = n_;
  if (n_ < 0) {
    const Tensor w = *call.input(first_ + kW);
    n = CheckW(w);
    memory->weights = Pack(w, n);
  }
  if (scale_.empty()) {
    const Tensor given = *call.input(first_ + kScale);
    CheckScale(given, n);
    memory->scale = Scale(given, n);
  }
  if (bias_.empty()) {
    const auto given = call.input(first_ + kBias);
    if (given) CheckBias(*given, n);
    memory->bias = Bias(given, n);
  }
  return {n, k_, (n_ < 0 ? memory->weights : weights_).data(),
          (scale_.empty() ? memory->scale : scale_).data(),
          (bias_.empty() ? memory->bias : bias_).data()};
}

int64_t NodeLayer::CheckW(const Tensor& w) const {
  const int64_t row_bytes = DivideUp(k_, 4);
  const bool fits = w.shape.size() == 2 && w.shape[0] >= 1 &&
                    (expected_ < 0 || w.shape[0] == expected_) &&
                    w.shape[1] == row_bytes;
  if (!fits)
    Refuse("W" + suffix_, Describe(w.shape),
           "shape (" + Size(expected_) + ", " + std::to_string(row_bytes) +
               "), four codes a byte for K = " + std::to_string(k_));
  CheckCodes(w.data<uint8_t>(), w.shape[0], k_, "W" + suffix_);
  return w.shape[0];
}

// n is negative while it is not known.
void NodeLayer::CheckScale(const Tensor& scale, int64_t n) const {
  const Shape& shape = scale.shape;
  if (shape.size() > 1 || (shape.size() == 1 && n >= 0 && shape[0] != n))
    Refuse("scale" + suffix_, Describe(shape), "shape () or (" + Size(n) + ")");
  for (int64_t i = 0; i < scale.size(); ++i)
    if (const float value = scale.data<float>()[i]; !std::isfinite(value))
      Refuse("scale" + suffix_,
             std::to_string(value) + " at " + std::to_string(i),
             "finite values");
}

void NodeLayer::CheckBias(const Tensor& bias, int64_t n) const {
  if (bias.shape.size() != 1 || (n >= 0 && bias.shape[0] != n))
    Refuse("bias" + suffix_, Describe(bias.shape), "shape (" + Size(n) + ")");
}

Weights NodeLayer::Pack(const Tensor& w, int64_t n) const {
  return Weights(*kernel_, w.data<uint8_t>(), n, k_);
}

std::vector<float> NodeLayer::Scale(const Tensor& scale, int64_t n) const {
  return PerOutput(*kernel_, scale.data<float>(), scale.size(), n);
}

// No bias is a bias of zeros.
std::vector<float> NodeLayer::Bias(const std::optional<Tensor>& bias,
                                   int64_t n) const {
  const float zero = 0;
  return PerOutput(*kernel_, bias ? bias->data<float>() : &zero, bias ? n : 1,
                   n);
}

}  // namespace bitsearch
