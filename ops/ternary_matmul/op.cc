// com.bithep::TernaryMatMul for onnxruntime: checks, packing at creation, runs.
#include "ternary_matmul/op.h"

#include <cmath>

#include "onnxruntime/ort.h"
#include "ternary_matmul/linear.h"

namespace bitsearch {
namespace {

constexpr int64_t kMaxK = (1 << 24) - 1;  // 128 * K fits an int32
enum Input { kX, kW, kScale, kBias };

int64_t RequireK(const NodeInfo& node) {
  const std::optional<int64_t> k = node.integer("K");
  const std::string expected = "1 to " + std::to_string(kMaxK);
  if (!k) Refuse("K", "no such attribute", expected);
  if (*k < 1 || *k > kMaxK) Refuse("K", std::to_string(*k), expected);
  return *k;
}

float RequireQMax(const NodeInfo& node) {
  const float q_max = node.number("act_qmax").value_or(127);
  if (!(q_max >= 1 && q_max <= 128 && q_max == std::floor(q_max)))
    Refuse("act_qmax", std::to_string(q_max), "a whole number from 1 to 128");
  return q_max;
}

class TernaryMatMul {
 public:
  static constexpr char kName[] = "TernaryMatMul";
  static constexpr Slot kInputs[] = {
      {}, {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8}, {}, {kFloat, true}};
  static constexpr Slot kOutputs[] = {{}};

  explicit TernaryMatMul(const NodeInfo& node)
      : kernel_(&ChooseKernel()),
        k_(RequireK(node)),
        q_max_(RequireQMax(node)) {
    if (const auto x = node.shape(kX); x && !x->empty() && x->back() >= 0)
      CheckX(*x);
    if (const auto w = node.constant(kW)) {
      n_ = CheckW(*w);
      kernel_ = &ChooseKernel(n_, k_);
      weights_ = Pack(*w, n_);
    }
    const auto scale = node.constant(kScale), bias = node.constant(kBias);
    if (scale) CheckScale(*scale, n_);
    if (bias) CheckBias(*bias, n_);
    if (n_ < 0) return;
    if (scale) scale_ = Scale(*scale, n_);
    if (bias || !node.has(kBias)) bias_ = Bias(bias, n_);
  }

  void Compute(const Call& call) const {
    thread_local Shape memory;
    Tensor x = *call.input(kX, std::move(memory));
    CheckX(x.shape);
    int64_t n = n_;
    Weights weights;
    std::vector<float> scale, bias;
    if (n_ < 0) {
      const Tensor w = *call.input(kW);
      n = CheckW(w);
      weights = Pack(w, n);
    }
    if (scale_.empty()) {
      const Tensor given = *call.input(kScale);
      CheckScale(given, n);
      scale = Scale(given, n);
    }
    if (bias_.empty()) {
      const auto given = call.input(kBias);
      if (given) CheckBias(*given, n);
      bias = Bias(given, n);
    }
    const int64_t m = x.size() / k_;
    x.shape.back() = n;
    float* y = call.output(x.shape);
    memory = std::move(x.shape);
    const Layer layer{n, k_, (n_ < 0 ? weights : weights_).data(),
                      (scale_.empty() ? scale : scale_).data(),
                      (bias_.empty() ? bias : bias_).data()};
    Run(*kernel_, layer, x.data<float>(), m, q_max_, call.pool(), y);
  }

 private:
  void CheckX(const Shape& shape) const {
    if (shape.empty() || shape.back() != k_)
      Refuse("X", Describe(shape), "shape (..., " + std::to_string(k_) + ")");
  }

  int64_t CheckW(const Tensor& w) const {
    const int64_t row_bytes = DivideUp(k_, 4);
    if (w.shape.size() != 2 || w.shape[0] < 1 || w.shape[1] != row_bytes)
      Refuse("W", Describe(w.shape),
             "shape (N, " + std::to_string(row_bytes) +
                 "), four codes a byte for K = " + std::to_string(k_));
    CheckCodes(w.data<uint8_t>(), w.shape[0], k_);
    return w.shape[0];
  }

  // n is negative while it is not known.
  static void CheckScale(const Tensor& scale, int64_t n) {
    const Shape& shape = scale.shape;
    if (shape.size() > 1 || (shape.size() == 1 && n >= 0 && shape[0] != n))
      Refuse("scale", Describe(shape),
             "shape () or (" + (n < 0 ? "N" : std::to_string(n)) + ")");
    for (int64_t i = 0; i < scale.size(); ++i)
      if (const float value = scale.data<float>()[i]; !std::isfinite(value))
        Refuse("scale", std::to_string(value) + " at " + std::to_string(i),
               "finite values");
  }

  static void CheckBias(const Tensor& bias, int64_t n) {
    if (bias.shape.size() != 1 || (n >= 0 && bias.shape[0] != n))
      Refuse("bias", Describe(bias.shape),
             "shape (" + (n < 0 ? "N" : std::to_string(n)) + ")");
  }

  Weights Pack(const Tensor& w, int64_t n) const {
    return Weights(*kernel_, w.data<uint8_t>(), n, k_);
  }
  std::vector<float> Scale(const Tensor& scale, int64_t n) const {
    return PerOutput(*kernel_, scale.data<float>(), scale.size(), n);
  }
  // No bias is a bias of zeros.
  std::vector<float> Bias(const std::optional<Tensor>& bias, int64_t n) const {
    const float zero = 0;
    return PerOutput(*kernel_, bias ? bias->data<float>() : &zero, bias ? n : 1,
                     n);
  }

  const Kernel* kernel_;
  const int64_t k_;
  const float q_max_;
  // What is constant is prepared here; the rest is prepared in every run.
  int64_t n_ = -1;
  Weights weights_;
  std::vector<float> scale_;
  std::vector<float> bias_;
};

}  // namespace

const OrtCustomOp& TernaryMatMulOp() { return CustomOp<TernaryMatMul>(); }

}  // namespace bitsearch
