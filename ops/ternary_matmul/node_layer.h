// A layer of a node: its weights, scale and bias as inputs, checked and packed
// when the session is created as far as they are constant, else in every run.
#ifndef BITSEARCH_TERNARY_MATMUL_NODE_LAYER_H_
#define BITSEARCH_TERNARY_MATMUL_NODE_LAYER_H_

#include "onnxruntime/ort.h"
#include "ternary_matmul/linear.h"

namespace bitsearch {

// The attributes K, under its name, and act_qmax.
int64_t RequireK(const NodeInfo& node, const std::string& name);
float RequireQMax(const NodeInfo& node);

class NodeLayer {
 public:
  // W, scale and bias are three inputs from `first` on; `suffix` ends their
  // names in messages. n is the number of outputs, if something demands one.
  NodeLayer(const NodeInfo& node, size_t first, int64_t k, std::string suffix,
            std::optional<int64_t> n = std::nullopt);

  // What one run prepares, where inputs are not constant.
  struct Memory {
    Weights weights;
    std::vector<float> scale, bias;
  };
  Layer layer(const Call& call, Memory* memory) const;
  const Kernel& kernel() const { return *kernel_; }
  int64_t k() const { return k_; }

 private:
  int64_t CheckW(const Tensor& w) const;
  void CheckScale(const Tensor& scale, int64_t n) const;
  void CheckBias(const Tensor& bias, int64_t n) const;
  Weights Pack(const Tensor& w, int64_t n) const;
  std::vector<float> Scale(const Tensor& scale, int64_t n) const;
  std::vector<float> Bias(const std::optional<Tensor>& bias, int64_t n) const;

  const Kernel* kernel_;
  const size_t first_;
  const int64_t k_;
  const std::string suffix_;
  const int64_t expected_;  // outputs, or -1 for any number
  int64_t n_ = -1;
  Weights weights_;
  std::vector<float> scale_;
  std::vector<float> bias_;
};

}  // namespace bitsearch

#endif  // BITSEARCH_TERNARY_MATMUL_NODE_LAYER_H_
