// What the shared library exports.
#include <cstdio>
#include <new>
#include <sstream>
#include <string>

#include "message_passing/op.h"
#include "monotone_spline/op.h"
#include "onnxruntime/ort.h"
#include "reproducible/op.h"
#include "select_columns/op.h"
#include "ternary_chain/op.h"
#include "ternary_matmul/kernel.h"
#include "ternary_matmul/op.h"

// gcc 12's headers call it; libstdc++ has it from GLIBCXX_3.4.29 (EL9) on. Own,
// the library also loads on EL8. Weak, for programs that link libstdc++ in.
namespace std {
__attribute__((weak)) void __throw_bad_array_new_length() {
  throw std::bad_array_new_length();
}
}  // namespace std

namespace {

using bitsearch::api;
using bitsearch::Check;

// Marks options that have the domain: onnxruntime refuses a second one only
// when a session is created. Copies of options keep the mark, but before
// onnxruntime 1.22 not the domain: there it says whose it is.
std::string Mark(const OrtSessionOptions* options, const OrtApiBase* base) {
  std::ostringstream mark;
  mark << "com.bithep.registered";
  unsigned minor = 0;
  if (std::sscanf(base->GetVersionString(), "1.%u", &minor) == 1 && minor < 22)
    mark << '.' << options;
  return mark.str();
}

OrtCustomOpDomain* Domain() {
  static OrtCustomOpDomain* const domain = [] {
    OrtCustomOpDomain* made;
    Check(api->CreateCustomOpDomain("com.bithep", &made));
    Check(api->CustomOpDomain_Add(made, &bitsearch::TernaryMatMulOp()));
    Check(api->CustomOpDomain_Add(made, &bitsearch::MonotoneSplineOp()));
    for (const OrtCustomOp* op : bitsearch::TernaryChainOps())
      Check(api->CustomOpDomain_Add(made, op));
    Check(api->CustomOpDomain_Add(made, &bitsearch::MessagePassingOp()));
    Check(api->CustomOpDomain_Add(made, &bitsearch::SelectColumnsOp()));
    for (const OrtCustomOp* op : bitsearch::ReproducibleOps())
      Check(api->CustomOpDomain_Add(made, op));
    return made;
  }();
  return domain;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// Idempotent.
EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                    const OrtApiBase* base) {
  static const bool known = [&] {
    api = base->GetApi(bitsearch::kApiVersion);
    return api != nullptr;
  }();
  if (!known)
    return base->GetApi(1)->CreateStatus(
        ORT_FAIL, "bitsearch: found an onnxruntime older than 1.17");
  return bitsearch::Guard("bitsearch", [&] {
    bitsearch::ChooseKernel();
    const std::string mark = Mark(options, base);
    int registered;
    Check(api->HasSessionConfigEntry(options, mark.c_str(), &registered));
    if (registered) return;
    Check(api->AddCustomOpDomain(options, Domain()));
    Check(api->AddSessionConfigEntry(options, mark.c_str(), "1"));
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
