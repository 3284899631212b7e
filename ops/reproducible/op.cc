// The reproducible operators for onnxruntime: checks, weights that are packed
// when a session is created, runs.
#include "reproducible/op.h"

#include <algorithm>

#include "onnxruntime/ort.h"
#include "reproducible/kernel.h"

namespace bitsearch {
namespace {

constexpr int64_t kFunctionWork = 16;  // operations of an elementary function
constexpr Slot kIntegers{ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64};

// The attribute, which may only say what is served here.
void RequireInteger(const NodeInfo& node, const char* attribute, int64_t low,
                    int64_t high, int64_t fallback, int64_t* value) {
  *value = node.integer(attribute).value_or(fallback);
  if (*value < low || *value > high)
    Refuse(attribute, std::to_string(*value),
           std::to_string(low) + " to " + std::to_string(high));
}

int64_t Product(Shape::const_iterator begin, Shape::const_iterator end) {
  int64_t product = 1;
  for (; begin != end; ++begin) product *= *begin;
  return product;
}

// A constant matrix [k][n], or its transpose, in the layout of a kernel; or
// nothing, if the input is not constant.
class Weights {
 public:
  Weights(const ReproducibleKernel& kernel, const std::optional<Tensor>& b,
          bool transposed)
      : kernel_(kernel), transposed_(transposed) {
    if (b && b->shape.size() == 2) Set(b->data<float>(), b->shape);
  }
  // Those of a run, where they are not constant.
  Weights(const Weights& made, const float* b, const Shape& shape)
      : kernel_(made.kernel_), transposed_(made.transposed_) {
    Set(b, shape);
  }

  bool constant() const { return !packed_.empty(); }
  const float* packed() const { return packed_.data(); }

 private:
  void Set(const float* b, const Shape& shape) {
    const int64_t k = shape[transposed_], n = shape[!transposed_];
    packed_.resize(PackedSize(kernel_, k, n));
    Pack(kernel_, b, k, n, transposed_, packed_.data());
  }

  const ReproducibleKernel& kernel_;
  const bool transposed_;
  std::vector<float> packed_;
};

class MatMul {
 public:
  static constexpr char kName[] = "MatMul";
  static constexpr Slot kInputs[] = {{}, {}};
  static constexpr Slot kOutputs[] = {{}};

  explicit MatMul(const NodeInfo& node)
      : kernel_(ChooseReproducibleKernel()),
        weights_(kernel_, node.constant(1), false) {}

  void Compute(const Call& call) const {
    const Tensor a = *call.input(0), b = *call.input(1);
    const size_t rank = std::max(a.shape.size(), b.shape.size());
    if (a.shape.size() < 2) Refuse("A", Describe(a.shape), "two axes or more");
    if (b.shape.size() < 2) Refuse("B", Describe(b.shape), "two axes or more");
    const int64_t m = a.shape[a.shape.size() - 2], k = a.shape.back();
    const int64_t n = b.shape.back();
    if (b.shape[b.shape.size() - 2] != k)
      Refuse(
          "B", Describe(b.shape),
          "(..., " + std::to_string(k) + ", N) as A has " + Describe(a.shape));
    // Batches of both, aligned at their ends; strides of 0 repeat a matrix.
    Shape shape(rank, 1), strides_a(rank - 2), strides_b(rank - 2);
    const auto align = [&](const Shape& from, Shape* strides) {
      int64_t stride = 1;
      for (size_t i = 3; i <= from.size(); ++i) {
        const int64_t size = from[from.size() - i];
        int64_t& out = shape[rank - i];
        if (size != out && size != 1 && out != 1)
          Refuse("B", Describe(b.shape),
                 "batches that fit A's " + Describe(a.shape));
        if (size != 1) out = size;
        (*strides)[rank - i] = size == 1 ? 0 : stride;
        stride *= size;
      }
    };
    align(a.shape, &strides_a);
    align(b.shape, &strides_b);
    shape[rank - 2] = m;
    shape[rank - 1] = n;
    float* y = call.output(shape);
    const int64_t batch = Product(shape.begin(), shape.end() - 2);
    const float *x = a.data<float>(), *matrices = b.data<float>();
    if (b.shape.size() == 2) {  // all batches are rows of one product
      const auto multiply = [&](const Weights& weights) {
        Multiply(kernel_, x, batch * m, k, weights.packed(), n, nullptr,
                 call.pool(), y);
      };
      if (weights_.constant())
        multiply(weights_);
      else
        multiply(Weights(weights_, matrices, b.shape));
      return;
    }
    ParallelParts(
        call.pool(), batch, m * k * n + k * n, [&](int64_t begin, int64_t end) {
          std::vector<float> packed(PackedSize(kernel_, k, n));
          int64_t held = -1;
          for (int64_t i = begin; i < end; ++i) {
            int64_t from_a = 0, from_b = 0, rest = i;
            for (size_t axis = rank - 2; axis-- > 0; rest /= shape[axis]) {
              from_a += rest % shape[axis] * strides_a[axis];
              from_b += rest % shape[axis] * strides_b[axis];
            }
            if (from_b != held)
              Pack(kernel_, matrices + from_b * k * n, k, n, false,
                   packed.data());
            held = from_b;
            kernel_.multiply(x + from_a * m * k, m, k, packed.data(),
                             {0, DivideUp(n, kernel_.columns)}, n, nullptr,
                             y + i * m * n);
          }
        });
  }

 private:
  const ReproducibleKernel& kernel_;
  const Weights weights_;
};

class Gemm {
 public:
  static constexpr char kName[] = "Gemm";
  static constexpr Slot kInputs[] = {{}, {}, {}};
  static constexpr Slot kOutputs[] = {{}};

  explicit Gemm(const NodeInfo& node)
      : kernel_(ChooseReproducibleKernel()),
        transposed_(Transposed(node)),
        weights_(kernel_, node.constant(1), transposed_) {}

  void Compute(const Call& call) const {
    const Tensor a = *call.input(0), b = *call.input(1), c = *call.input(2);
    if (a.shape.size() != 2) Refuse("A", Describe(a.shape), "two axes");
    if (b.shape.size() != 2 || b.shape[transposed_] != a.shape[1])
      Refuse("B", Describe(b.shape),
             "two axes, one of them " + std::to_string(a.shape[1]));
    const int64_t n = b.shape[!transposed_];
    if (c.shape != Shape{n}) Refuse("C", Describe(c.shape), Describe(Shape{n}));
    float* y = call.output({a.shape[0], n});
    const auto multiply = [&](const Weights& weights) {
      Multiply(kernel_, a.data<float>(), a.shape[0], a.shape[1],
               weights.packed(), n, c.data<float>(), call.pool(), y);
    };
    if (weights_.constant())
      multiply(weights_);
    else
      multiply(Weights(weights_, b.data<float>(), b.shape));
  }

 private:
  static bool Transposed(const NodeInfo& node) {
    int64_t value;
    RequireInteger(node, "transB", 0, 1, 0, &value);
    return value == 1;
  }

  const ReproducibleKernel& kernel_;
  const bool transposed_;
  const Weights weights_;
};

class ReduceSum {
 public:
  static constexpr char kName[] = "ReduceSum";
  static constexpr Slot kInputs[] = {{}, kIntegers};
  static constexpr Slot kOutputs[] = {{}};

  explicit ReduceSum(const NodeInfo& node)
      : kernel_(ChooseReproducibleKernel()) {
    RequireInteger(node, "keepdims", 0, 1, 1, &keepdims_);
  }

  void Compute(const Call& call) const {
    const Tensor x = *call.input(0), given = *call.input(1);
    const auto rank = static_cast<int64_t>(x.shape.size());
    Shape axes(given.data<int64_t>(), given.data<int64_t>() + given.size());
    for (int64_t& axis : axes) axis += axis < 0 ? rank : 0;
    std::sort(axes.begin(), axes.end());
    bool neighbours = !axes.empty() && axes[0] >= 0 && axes.back() < rank;
    for (size_t i = 1; i < axes.size(); ++i)
      neighbours &= axes[i] == axes[i - 1] + 1;
    if (!neighbours)
      Refuse("axes", Describe(axes),
             "neighbouring axes of data, which has " + Describe(x.shape));
    const auto first = x.shape.begin() + axes[0];
    const auto behind = x.shape.begin() + axes.back() + 1;
    Shape shape(x.shape.begin(), first);
    if (keepdims_) shape.resize(shape.size() + axes.size(), 1);
    shape.insert(shape.end(), behind, x.shape.end());
    const int64_t outer = Product(x.shape.begin(), first);
    const int64_t size = Product(first, behind);
    const int64_t inner = Product(behind, x.shape.end());
    const float* data = x.data<float>();
    float* y = call.output(shape);
    ParallelParts(call.pool(), outer, size * inner,
                  [&](int64_t begin, int64_t end) {
                    kernel_.sum(data + begin * size * inner, end - begin, size,
                                inner, y + begin * inner);
                  });
  }

 private:
  const ReproducibleKernel& kernel_;
  int64_t keepdims_;
};

// The last axis as the attribute names it: -1, or its number.
void RequireLast(int64_t axis, const Shape& shape) {
  const auto rank = static_cast<int64_t>(shape.size());
  if (rank == 0 || (axis != -1 && axis != rank - 1))
    Refuse("axis", std::to_string(axis) + " of " + Describe(shape),
           "the last one");
}

class Softmax {
 public:
  static constexpr char kName[] = "Softmax";
  static constexpr Slot kInputs[] = {{}};
  static constexpr Slot kOutputs[] = {{}};

  explicit Softmax(const NodeInfo& node)
      : kernel_(ChooseReproducibleKernel()),
        axis_(node.integer("axis").value_or(-1)) {}

  void Compute(const Call& call) const {
    const Tensor x = *call.input(0);
    RequireLast(axis_, x.shape);
    const float* data = x.data<float>();
    float* y = call.output(x.shape);
    const int64_t size = x.shape.back();
    if (!size) return;
    ParallelParts(call.pool(), x.size() / size, size * kFunctionWork,
                  [&](int64_t begin, int64_t end) {
                    kernel_.softmax(data + begin * size, end - begin, size,
                                    y + begin * size);
                  });
  }

 private:
  const ReproducibleKernel& kernel_;
  const int64_t axis_;
};

class LayerNormalization {
 public:
  static constexpr char kName[] = "LayerNormalization";
  static constexpr Slot kInputs[] = {{}, {}, {}};
  static constexpr Slot kOutputs[] = {{}};

  explicit LayerNormalization(const NodeInfo& node)
      : kernel_(ChooseReproducibleKernel()),
        axis_(node.integer("axis").value_or(-1)),
        epsilon_(node.number("epsilon").value_or(1e-5f)) {}

  void Compute(const Call& call) const {
    const Tensor x = *call.input(0), scale = *call.input(1),
                 bias = *call.input(2);
    RequireLast(axis_, x.shape);
    const int64_t size = x.shape.back();
    if (scale.shape != Shape{size})
      Refuse("Scale", Describe(scale.shape), Describe(Shape{size}));
    if (bias.shape != Shape{size})
      Refuse("B", Describe(bias.shape), Describe(Shape{size}));
    const float* data = x.data<float>();
    float* y = call.output(x.shape);
    if (!size) return;
    ParallelParts(call.pool(), x.size() / size, size * 4,
                  [&](int64_t begin, int64_t end) {
                    kernel_.normalize(data + begin * size, end - begin, size,
                                      scale.data<float>(), bias.data<float>(),
                                      epsilon_, y + begin * size);
                  });
  }

 private:
  const ReproducibleKernel& kernel_;
  const int64_t axis_;
  const float epsilon_;
};

constexpr const char* kNames[] = {"Asinh", "Atan", "Cos",  "Cosh", "Erf",
                                  "Exp",   "Gelu", "Gelu", "Log",  "Sigmoid",
                                  "Sin",   "Sinh", "Sqrt", "Tanh"};

template <Elementary kFunction>
class Function {
 public:
  static constexpr const char* kName = kNames[static_cast<int>(kFunction)];
  static constexpr Slot kInputs[] = {{}};
  static constexpr Slot kOutputs[] = {{}};

  explicit Function(const NodeInfo& node)
      : kernel_(ChooseReproducibleKernel()), function_(kFunction) {
    if (kFunction != Elementary::kGelu) return;
    const std::string word = node.text("approximate").value_or("none");
    if (word == "tanh")
      function_ = Elementary::kGeluTanh;
    else if (word != "none")
      Refuse("approximate", "'" + word + "'", "'none' or 'tanh'");
  }

  void Compute(const Call& call) const {
    const Tensor x = *call.input(0);
    const float* data = x.data<float>();
    float* y = call.output(x.shape);
    // Parts of whole vectors: the last one of a part costs as much.
    constexpr int64_t kVector = 64;
    const int64_t size = x.size();
    ParallelParts(call.pool(), DivideUp(size, kVector), kVector * kFunctionWork,
                  [&](int64_t begin, int64_t end) {
                    const int64_t from = begin * kVector;
                    kernel_.apply(function_, data + from,
                                  std::min(end * kVector, size) - from,
                                  y + from);
                  });
  }

 private:
  const ReproducibleKernel& kernel_;
  Elementary function_;
};

}  // namespace

std::vector<const OrtCustomOp*> ReproducibleOps() {
  return {&CustomOp<MatMul>(),
          &CustomOp<Gemm>(),
          &CustomOp<ReduceSum>(),
          &CustomOp<Softmax>(),
          &CustomOp<LayerNormalization>(),
          &CustomOp<Function<Elementary::kAsinh>>(),
          &CustomOp<Function<Elementary::kAtan>>(),
          &CustomOp<Function<Elementary::kCos>>(),
          &CustomOp<Function<Elementary::kCosh>>(),
          &CustomOp<Function<Elementary::kErf>>(),
          &CustomOp<Function<Elementary::kExp>>(),
          &CustomOp<Function<Elementary::kGelu>>(),
          &CustomOp<Function<Elementary::kLog>>(),
          &CustomOp<Function<Elementary::kSigmoid>>(),
          &CustomOp<Function<Elementary::kSin>>(),
          &CustomOp<Function<Elementary::kSinh>>(),
          &CustomOp<Function<Elementary::kSqrt>>(),
          &CustomOp<Function<Elementary::kTanh>>()};
}

}  // namespace bitsearch
