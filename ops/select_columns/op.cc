// com.bithep::SelectColumns for onnxruntime: checks and runs.
#include "select_columns/op.h"

#include <algorithm>

#include "onnxruntime/ort.h"
#include "reproducible/kernel.h"  // ParallelParts

namespace bitsearch {
namespace {

enum Input { kA, kC, kIndex, kOffset, kFactor };

void RequireVector(const char* name, const Tensor& found, int64_t size) {
  if (found.shape != Shape{size})
    Refuse(name, Describe(found.shape), Describe(Shape{size}));
}

class SelectColumns {
 public:
  static constexpr char kName[] = "SelectColumns";
  static constexpr Slot kInputs[] = {
      {}, {}, {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64}, {}, {}};
  static constexpr Slot kOutputs[] = {{}};

  explicit SelectColumns(const NodeInfo&) {}

  void Compute(const Call& call) const {
    const Tensor a = *call.input(kA), c = *call.input(kC),
                 index = *call.input(kIndex), offset = *call.input(kOffset),
                 factor = *call.input(kFactor);
    if (a.shape.size() != 2) Refuse("A", Describe(a.shape), "two axes");
    const int64_t rows = a.shape[0], p = a.shape[1];
    if (c.shape.size() != 2 || c.shape[0] != rows)
      Refuse("C", Describe(c.shape), Describe(Shape{rows, -1}));
    const int64_t q = c.shape[1];
    if (index.shape.size() != 1)
      Refuse("index", Describe(index.shape), "one axis");
    const int64_t m = index.shape[0];
    RequireVector("offset", offset, m);
    RequireVector("factor", factor, m);
    const int64_t* at = index.data<int64_t>();
    for (int64_t j = 0; j < m; ++j)
      if (at[j] < 0 || at[j] >= p + q)
        Refuse("index", std::to_string(at[j]),
               "0 to " + std::to_string(p + q - 1));
    const float *left = a.data<float>(), *right = c.data<float>(),
                *low = offset.data<float>(), *scale = factor.data<float>();
    float* y = call.output({rows, m});
    ParallelParts(
        call.pool(), rows, p + q + m, [&](int64_t begin, int64_t end) {
          thread_local std::vector<float> row;  // of both, so that one index
          row.resize(p + q);                    // serves
          for (int64_t i = begin; i < end; ++i) {
            std::copy_n(left + i * p, p, row.data());
            std::copy_n(right + i * q, q, row.data() + p);
            const float* x = row.data();
            float* out = y + i * m;
            for (int64_t j = 0; j < m; ++j)
              out[j] = (x[at[j]] - low[j]) * scale[j];
          }
        });
  }
};

}  // namespace

const OrtCustomOp& SelectColumnsOp() { return CustomOp<SelectColumns>(); }

}  // namespace bitsearch
