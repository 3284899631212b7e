// What an operator needs of onnxruntime's C API. Errors are exceptions inside
// the library and statuses at its border (Guard).
#ifndef BITSEARCH_ORT_H_
#define BITSEARCH_ORT_H_

#include <onnxruntime_c_api.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "linear.h"

namespace bitsearch {

// The oldest API with KernelContext_ParallelFor; newer runtimes provide it too.
constexpr uint32_t kApiVersion = 17;

// Set once, when the library is first registered.
extern const OrtApi* api;

// Throws what onnxruntime reports.
void Check(OrtStatus* status);

// Throws std::invalid_argument "name: found ..., expected ...".
[[noreturn]] void Refuse(const std::string& name, const std::string& found,
                         const std::string& expected);

using Shape = std::vector<int64_t>;  // -1 where it is not known yet
std::string Describe(const Shape& shape);

struct Tensor {
  const OrtValue* value;
  Shape shape;

  int64_t size() const;
  template <class T>
  const T* data() const {
    void* data;
    Check(api->GetTensorMutableData(const_cast<OrtValue*>(value), &data));
    return static_cast<const T*>(data);
  }
};

// A node when its session is created.
class NodeInfo {
 public:
  explicit NodeInfo(const OrtKernelInfo* info) : info_(info) {}
  std::string name() const;
  std::optional<int64_t> integer(const char* attribute) const;
  std::optional<float> number(const char* attribute) const;
  std::optional<std::string> text(const char* attribute) const;
  std::optional<Tensor> constant(size_t input) const;
  std::optional<Shape> shape(size_t input) const;  // as far as it is known

 private:
  bool has(size_t input) const;
  void RefuseIfPresent(const char* attribute, const char* expected) const;
  const OrtKernelInfo* info_;
};

// One run of a node.
class Call {
 public:
  explicit Call(OrtKernelContext* context) : context_(context) {}
  // The shape is written into `memory`, for calls that allocate nothing.
  std::optional<Tensor> input(size_t index, Shape memory = {}) const;
  // Null for an optional output that nobody reads.
  float* output(const Shape& shape, size_t index = 0) const;
  Pool pool() const;

 private:
  OrtKernelContext* context_;
};

// Runs body() and turns what it throws into a status that names the operator.
template <class Body>
OrtStatus* Guard(const std::string& name, Body body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const std::invalid_argument& error) {
    return api->CreateStatus(ORT_INVALID_ARGUMENT,
                             (name + ": " + error.what()).c_str());
  } catch (const std::exception& error) {
    return api->CreateStatus(ORT_FAIL, (name + ": " + error.what()).c_str());
  }
}

}  // namespace bitsearch

#endif  // BITSEARCH_ORT_H_
