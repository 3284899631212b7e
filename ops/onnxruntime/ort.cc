#include "onnxruntime/ort.h"

#include <memory>

namespace bitsearch {
namespace {

Shape Dimensions(const OrtTensorTypeAndShapeInfo* info, Shape shape = {}) {
  size_t rank;
  Check(api->GetDimensionsCount(info, &rank));
  shape.resize(rank);
  Check(api->GetDimensions(info, shape.data(), rank));
  return shape;
}

Tensor View(const OrtValue* value, Shape memory = {}) {
  OrtTensorTypeAndShapeInfo* info;
  Check(api->GetTensorTypeAndShape(value, &info));
  const std::unique_ptr<OrtTensorTypeAndShapeInfo,
                        decltype(api->ReleaseTensorTypeAndShapeInfo)>
      owner(info, api->ReleaseTensorTypeAndShapeInfo);
  return {value, Dimensions(info, std::move(memory))};
}

bool Succeeded(OrtStatus* status) {
  if (status) api->ReleaseStatus(status);
  return !status;
}

}  // namespace

const OrtApi* api = nullptr;

void Check(OrtStatus* status) {
  if (!status) return;
  const std::string message = api->GetErrorMessage(status);
  api->ReleaseStatus(status);
  throw std::runtime_error(message);
}

void Refuse(const std::string& name, const std::string& found,
            const std::string& expected) {
  throw std::invalid_argument(name + ": found " + found + ", expected " +
                              expected);
}

std::string Describe(const Shape& shape) {
  std::string text = "shape (";
  for (const int64_t size : shape)
    text += (text.back() == '(' ? "" : ", ") +
            (size < 0 ? "?" : std::to_string(size));
  return text + ")";
}

int64_t Tensor::size() const {
  int64_t size = 1;
  for (const int64_t extent : shape)
    if (!Multiply(size, extent, &size))
      Refuse("a tensor", Describe(shape), "fewer than 2^63 elements");
  return size;
}

std::string NodeInfo::name() const {
  char name[256];
  size_t size = sizeof name;
  return Succeeded(api->KernelInfo_GetNodeName(info_, name, &size)) ? name : "";
}

// An attribute of another type reads as absent: tell the two apart.
void NodeInfo::RefuseIfPresent(const char* attribute,
                               const char* expected) const {
  int64_t integer;
  float number;
  size_t size = 0;
  if (Succeeded(api->KernelInfoGetAttribute_int64(info_, attribute, &integer)))
    Refuse(attribute, "the integer " + std::to_string(integer), expected);
  if (Succeeded(api->KernelInfoGetAttribute_float(info_, attribute, &number)))
    Refuse(attribute, "the float " + std::to_string(number), expected);
  if (Succeeded(
          api->KernelInfoGetAttribute_string(info_, attribute, nullptr, &size)))
    Refuse(attribute, "a string", expected);
  if (Succeeded(api->KernelInfoGetAttributeArray_float(info_, attribute,
                                                       nullptr, &size)) ||
      Succeeded(api->KernelInfoGetAttributeArray_int64(info_, attribute,
                                                       nullptr, &size)))
    Refuse(attribute, "a list", expected);
}

std::optional<int64_t> NodeInfo::integer(const char* attribute) const {
  int64_t value;
  if (Succeeded(api->KernelInfoGetAttribute_int64(info_, attribute, &value)))
    return value;
  RefuseIfPresent(attribute, "an integer");
  return std::nullopt;
}

std::optional<float> NodeInfo::number(const char* attribute) const {
  float value;
  if (Succeeded(api->KernelInfoGetAttribute_float(info_, attribute, &value)))
    return value;
  RefuseIfPresent(attribute, "a float");
  return std::nullopt;
}

std::optional<std::string> NodeInfo::text(const char* attribute) const {
  size_t size = 0;
  if (!Succeeded(api->KernelInfoGetAttribute_string(info_, attribute, nullptr,
                                                    &size))) {
    RefuseIfPresent(attribute, "a string");
    return std::nullopt;
  }
  std::string value(size, '\0');
  Check(api->KernelInfoGetAttribute_string(info_, attribute, value.data(),
                                           &size));
  value.resize(size - 1);  // the size counts a final zero
  return value;
}

bool NodeInfo::has(size_t input) const {
  size_t count;
  Check(api->KernelInfo_GetInputCount(info_, &count));
  if (input >= count) return false;
  size_t name_size = 0;  // with its end
  Check(api->KernelInfo_GetInputName(info_, input, nullptr, &name_size));
  return name_size > 1;
}

std::optional<Tensor> NodeInfo::constant(size_t input) const {
  int is_constant = 0;
  const OrtValue* value = nullptr;
  if (!has(input) || !Succeeded(api->KernelInfoGetConstantInput_tensor(
                         info_, input, &is_constant, &value)))
    return std::nullopt;
  if (!is_constant || !value) return std::nullopt;
  return View(value);
}

std::optional<Shape> NodeInfo::shape(size_t input) const {
  OrtTypeInfo* type;
  if (!has(input) ||
      !Succeeded(api->KernelInfo_GetInputTypeInfo(info_, input, &type)))
    return std::nullopt;
  const std::unique_ptr<OrtTypeInfo, decltype(api->ReleaseTypeInfo)> owner(
      type, api->ReleaseTypeInfo);
  const OrtTensorTypeAndShapeInfo* info;
  Check(api->CastTypeInfoToTensorInfo(type, &info));
  // A tensor of unknown rank also shows no dimensions here.
  return info ? std::optional(Dimensions(info)) : std::nullopt;
}

std::optional<Tensor> Call::input(size_t index, Shape memory) const {
  size_t count;
  Check(api->KernelContext_GetInputCount(context_, &count));
  if (index >= count) return std::nullopt;
  const OrtValue* value;
  Check(api->KernelContext_GetInput(context_, index, &value));
  if (!value) return std::nullopt;
  return View(value, std::move(memory));
}

float* Call::output(const Shape& shape, size_t index) const {
  size_t count;
  Check(api->KernelContext_GetOutputCount(context_, &count));
  if (index >= count) return nullptr;
  OrtValue* value;
  Check(api->KernelContext_GetOutput(context_, index, shape.data(),
                                     shape.size(), &value));
  if (!value) return nullptr;
  void* data;
  Check(api->GetTensorMutableData(value, &data));
  return static_cast<float*>(data);
}

Pool Call::pool() const {
  return {context_, [](void* context, void (*body)(void*, size_t), size_t total,
                       void* data) {
            Check(api->KernelContext_ParallelFor(
                static_cast<OrtKernelContext*>(context), body, total, 0, data));
          }};
}

}  // namespace bitsearch
