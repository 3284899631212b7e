// What the shared library exports.
#include <mutex>

#include "monotone_spline/op.h"
#include "onnxruntime/ort.h"
#include "ternary_matmul/kernel.h"
#include "ternary_matmul/op.h"

namespace {

OrtCustomOpDomain* Domain() {
  static OrtCustomOpDomain* const domain = [] {
    OrtCustomOpDomain* made;
    bitsearch::Check(bitsearch::api->CreateCustomOpDomain("com.bithep", &made));
    bitsearch::Check(bitsearch::api->CustomOpDomain_Add(
        made, &bitsearch::TernaryMatMulOp()));
    bitsearch::Check(bitsearch::api->CustomOpDomain_Add(
        made, &bitsearch::MonotoneSplineOp()));
    return made;
  }();
  return domain;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                    const OrtApiBase* base) {
  static std::once_flag once;
  std::call_once(
      once, [&] { bitsearch::api = base->GetApi(bitsearch::kApiVersion); });
  if (!bitsearch::api)
    return base->GetApi(1)->CreateStatus(
        ORT_FAIL, "bitsearch: found an onnxruntime older than 1.17");
  return bitsearch::Guard("bitsearch", [&] {
    bitsearch::ChooseKernel();
    bitsearch::Check(bitsearch::api->AddCustomOpDomain(options, Domain()));
  });
}

// The table of kernels, best first; null past its end.
EXPORT const char* bitsearch_kernel_name(size_t index) {
  const auto& kernels = bitsearch::Kernels();
  return index < kernels.size() ? kernels[index].name : nullptr;
}

EXPORT int bitsearch_kernel_usable(size_t index) {
  return bitsearch::Kernels()[index].usable();
}

// Its index in the table, or -1 if BITSEARCH_KERNEL names no usable one.
EXPORT int bitsearch_kernel_chosen() {
  try {
    return static_cast<int>(&bitsearch::ChooseKernel() -
                            bitsearch::Kernels().data());
  } catch (const std::exception&) {
    return -1;
  }
}
