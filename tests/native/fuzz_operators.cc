// Creates and runs the operators through a runtime made up here, which declares
// and feeds any types of attributes, ranks and sizes. What is valid must run
// and fill its outputs, what is not must be refused. Usage: fuzz_operators
// SECONDS [SEED]
#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "fuzz.h"
#include "message_passing/op.h"
#include "monotone_spline/op.h"
#include "monotone_spline/spline.h"
#include "onnxruntime/ort.h"
#include "reproducible/op.h"
#include "select_columns/op.h"
#include "ternary_chain/op.h"
#include "ternary_matmul/op.h"

using Shape = std::vector<int64_t>;
using Attribute = std::variant<int64_t, float, std::string, std::vector<float>>;

// What onnxruntime keeps behind its names.
struct OrtStatus {
  std::string message;
};
struct OrtTensorTypeAndShapeInfo {
  Shape shape;
};
struct OrtTypeInfo {
  OrtTensorTypeAndShapeInfo info;
};
struct OrtValue {
  Shape shape;
  std::unique_ptr<uint8_t[]> bytes;
};
struct OrtKernelInfo {
  std::map<std::string, Attribute> attributes;
  std::vector<std::string> inputs;  // "" is absent
  std::vector<std::optional<Shape>> declared;
  std::vector<OrtValue*> constants;
};
struct OrtKernelContext {
  std::vector<OrtValue*> inputs;
  std::vector<OrtValue> outputs;
};
struct OrtCustomOpDomain {
  int operators;
};
struct OrtSessionOptions {
  std::map<std::string, std::string> entries;
  int domains;
};

extern "C" OrtStatus* RegisterCustomOps(OrtSessionOptions*, const OrtApiBase*);

namespace {

int64_t Count(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

OrtStatus* Fail(const char* message) { return new OrtStatus{message}; }

template <class T>
OrtStatus* Get(const OrtKernelInfo* info, const char* name, T* out) noexcept {
  const auto found = info->attributes.find(name);
  if (found == info->attributes.end()) return Fail("no such attribute");
  const T* value = std::get_if<T>(&found->second);
  if (!value) return Fail("another type");
  *out = *value;
  return nullptr;
}

// A string with its end, if there is room: onnxruntime's way.
OrtStatus* Copy(const std::string& text, char* out, size_t* size) {
  const size_t room = *size;
  *size = text.size() + 1;
  if (!out) return nullptr;
  if (room < *size) return Fail("too small");
  std::memcpy(out, text.c_str(), *size);
  return nullptr;
}

OrtApi MakeApi() {
  OrtApi api{};
  api.CreateStatus = [](OrtErrorCode, const char* text) noexcept {
    return Fail(text);
  };
  api.GetErrorMessage = [](const OrtStatus* status) noexcept -> const char* {
    return status->message.c_str();
  };
  api.ReleaseStatus = [](OrtStatus* status) noexcept { delete status; };
  api.GetDimensionsCount = [](const OrtTensorTypeAndShapeInfo* info,
                              size_t* count) noexcept -> OrtStatus* {
    *count = info->shape.size();
    return nullptr;
  };
  api.GetDimensions = [](const OrtTensorTypeAndShapeInfo* info, int64_t* out,
                         size_t count) noexcept -> OrtStatus* {
    std::copy_n(info->shape.begin(), count, out);
    return nullptr;
  };
  api.GetTensorTypeAndShape =
      [](const OrtValue* value,
         OrtTensorTypeAndShapeInfo** info) noexcept -> OrtStatus* {
    *info = new OrtTensorTypeAndShapeInfo{value->shape};
    return nullptr;
  };
  api.ReleaseTensorTypeAndShapeInfo =
      [](OrtTensorTypeAndShapeInfo* info) noexcept { delete info; };
  api.GetTensorMutableData = [](OrtValue* value,
                                void** out) noexcept -> OrtStatus* {
    *out = value->bytes.get();
    return nullptr;
  };
  api.KernelInfo_GetNodeName = [](const OrtKernelInfo*, char* out,
                                  size_t* size) noexcept {
    return Copy("node", out, size);
  };
  api.KernelInfoGetAttribute_int64 = Get<int64_t>;
  api.KernelInfoGetAttribute_float = Get<float>;
  api.KernelInfoGetAttribute_string = [](const OrtKernelInfo* info,
                                         const char* name, char* out,
                                         size_t* size) noexcept {
    std::string text;
    OrtStatus* status = Get(info, name, &text);
    return status ? status : Copy(text, out, size);
  };
  api.KernelInfoGetAttributeArray_float = [](const OrtKernelInfo* info,
                                             const char* name, float*,
                                             size_t* size) noexcept {
    std::vector<float> list;
    OrtStatus* status = Get(info, name, &list);
    *size = list.size();
    return status;
  };
  api.KernelInfoGetAttributeArray_int64 = [](const OrtKernelInfo*, const char*,
                                             int64_t*, size_t*) noexcept {
    return Fail("another type");
  };
  api.KernelInfo_GetInputCount = [](const OrtKernelInfo* info,
                                    size_t* count) noexcept -> OrtStatus* {
    *count = info->inputs.size();
    return nullptr;
  };
  api.KernelInfo_GetInputName = [](const OrtKernelInfo* info, size_t index,
                                   char* out, size_t* size) noexcept {
    return Copy(info->inputs[index], out, size);
  };
  api.KernelInfoGetConstantInput_tensor =
      [](const OrtKernelInfo* info, size_t index, int* is_constant,
         const OrtValue** out) noexcept -> OrtStatus* {
    *out = info->constants[index];
    *is_constant = *out != nullptr;
    return nullptr;
  };
  api.KernelInfo_GetInputTypeInfo =
      [](const OrtKernelInfo* info, size_t index,
         OrtTypeInfo** out) noexcept -> OrtStatus* {
    if (!info->declared[index]) return Fail("no shape");
    *out = new OrtTypeInfo{{*info->declared[index]}};
    return nullptr;
  };
  api.CastTypeInfoToTensorInfo =
      [](const OrtTypeInfo* type,
         const OrtTensorTypeAndShapeInfo** out) noexcept -> OrtStatus* {
    *out = &type->info;
    return nullptr;
  };
  api.ReleaseTypeInfo = [](OrtTypeInfo* type) noexcept { delete type; };
  api.KernelContext_GetInputCount = [](const OrtKernelContext* context,
                                       size_t* count) noexcept -> OrtStatus* {
    *count = context->inputs.size();
    return nullptr;
  };
  api.KernelContext_GetInput = [](const OrtKernelContext* context, size_t index,
                                  const OrtValue** out) noexcept -> OrtStatus* {
    *out = context->inputs[index];
    return nullptr;
  };
  api.KernelContext_GetOutputCount = [](const OrtKernelContext* context,
                                        size_t* count) noexcept -> OrtStatus* {
    *count = context->outputs.size();
    return nullptr;
  };
  api.KernelContext_GetOutput = [](OrtKernelContext* context, size_t index,
                                   const int64_t* shape, size_t rank,
                                   OrtValue** out) noexcept -> OrtStatus* {
    OrtValue& value = context->outputs[index];
    value.shape.assign(shape, shape + rank);
    const int64_t size = Count(value.shape) * 4;
    value.bytes.reset(new uint8_t[size]);
    std::memset(value.bytes.get(), 0xa5, size);  // a float that nobody computes
    *out = &value;
    return nullptr;
  };
  api.KernelContext_ParallelFor =
      [](const OrtKernelContext*, void (*body)(void*, size_t), size_t total,
         size_t, void* data) noexcept -> OrtStatus* {
    RunTasks(nullptr, body, total, data);
    return nullptr;
  };
  api.CreateCustomOpDomain =
      [](const char*, OrtCustomOpDomain** out) noexcept -> OrtStatus* {
    *out = new OrtCustomOpDomain{};
    return nullptr;
  };
  api.CustomOpDomain_Add = [](OrtCustomOpDomain* domain,
                              const OrtCustomOp*) noexcept -> OrtStatus* {
    ++domain->operators;
    return nullptr;
  };
  api.AddCustomOpDomain = [](OrtSessionOptions* options,
                             OrtCustomOpDomain*) noexcept -> OrtStatus* {
    ++options->domains;
    return nullptr;
  };
  api.HasSessionConfigEntry = [](const OrtSessionOptions* options,
                                 const char* key,
                                 int* out) noexcept -> OrtStatus* {
    *out = static_cast<int>(options->entries.count(key));
    return nullptr;
  };
  api.AddSessionConfigEntry = [](OrtSessionOptions* options, const char* key,
                                 const char* value) noexcept -> OrtStatus* {
    options->entries[key] = value;
    return nullptr;
  };
  return api;
}

const OrtApi kApi = MakeApi();
const OrtApiBase kBase{[](uint32_t) noexcept { return &kApi; },
                       []() noexcept { return "made up"; }};

// One node, what is fed to it, and whether both are as the README says.
struct Case {
  const OrtCustomOp* op;
  OrtKernelInfo info;
  std::vector<std::unique_ptr<OrtValue>> values;
  size_t outputs;
  bool valid = true;

  void Add(OrtValue value, bool constant, Random& random, const char* name) {
    info.inputs.push_back(name);
    std::optional<Shape> declared;
    if (Pick(random, 0, 2)) {
      declared = value.shape;
      for (int64_t& size : *declared)
        if (!Pick(random, 0, 5)) size = -1;
    }
    info.declared.push_back(declared);
    values.push_back(std::make_unique<OrtValue>(std::move(value)));
    info.constants.push_back(constant ? values.back().get() : nullptr);
  }
  void AddNothing() {
    info.inputs.push_back("");
    info.declared.push_back(std::nullopt);
    values.push_back(nullptr);
    info.constants.push_back(nullptr);
  }
  // Declares what no memory holds; that must not be multiplied blindly.
  void DeclareHuge(Random& random) {
    auto& declared = info.declared[0];
    if (!declared || declared->empty()) return;
    constexpr int64_t kHuge[] = {INT64_MAX, INT64_MAX / 2, int64_t{1} << 62};
    declared->back() = kHuge[Pick(random, 0, 2)];
    valid = false;
  }
};

OrtValue Floats(Random& random, Shape shape) {
  const int64_t count = Count(shape);
  OrtValue value{std::move(shape),
                 std::unique_ptr<uint8_t[]>(new uint8_t[count * 4])};
  for (int64_t i = 0; i < count; ++i) {
    const float number = std::normal_distribution<float>()(random);
    std::memcpy(&value.bytes[4 * i], &number, 4);
  }
  return value;
}

OrtValue Codes(Random& random, Shape shape, bool* has_three) {
  const int64_t count = Count(shape);
  OrtValue value{std::move(shape),
                 std::unique_ptr<uint8_t[]>(new uint8_t[count])};
  for (int64_t i = 0; i < count; ++i) {
    int byte = 0;
    for (int field = 0; field < 8; field += 2)
      byte |= Pick(random, 0, 2) << field;
    if (!Pick(random, 0, 1000)) byte |= 3;
    *has_three |= (byte & byte >> 1 & 0x55) != 0;
    value.bytes[i] = static_cast<uint8_t>(byte);
  }
  return value;
}

// Sizes in front of the last axis.
Shape Batch(Random& random) {
  Shape shape(Pick(random, 0, 3));
  for (int64_t& size : shape) size = Pick(random, 0, 5);
  return shape;
}

// The size, or now and then another.
int64_t Near(Random& random, int64_t size, bool* valid) {
  if (Pick(random, 0, 40)) return size;
  *valid = false;
  return size + 1;
}

void Spoil(Random& random, const char* name, Case* given) {
  if (Pick(random, 0, 60)) return;
  given->valid = false;
  if (Pick(random, 0, 1))
    given->info.attributes[name] = std::vector<float>{1};
  else
    given->info.attributes[name] = std::string("word");
}

Case TernaryCase(Random& random) {
  Case given{&bitsearch::TernaryMatMulOp(), {}, {}, 1};
  const int64_t k = Pick(random, 1, 70), n = Pick(random, 1, 40);
  given.info.attributes["K"] = k;
  if (Pick(random, 0, 1)) {
    const float q_max = static_cast<float>(Pick(random, 0, 130));
    given.info.attributes["act_qmax"] = q_max;
    given.valid &= q_max >= 1 && q_max <= 128;
  }
  if (!Pick(random, 0, 60)) {
    given.info.attributes.erase("K");
    given.valid = false;
  }
  Spoil(random, "K", &given);
  Spoil(random, "act_qmax", &given);
  Shape x = Batch(random);
  x.push_back(Near(random, k, &given.valid));
  given.Add(Floats(random, x), false, random, "X");
  bool has_three = false;
  given.Add(
      Codes(random, {n, Near(random, (k + 3) / 4, &given.valid)}, &has_three),
      Pick(random, 0, 1), random, "W");
  given.valid &= !has_three;
  Shape scale;
  if (Pick(random, 0, 1)) scale = {Near(random, n, &given.valid)};
  given.Add(Floats(random, scale), Pick(random, 0, 1), random, "scale");
  if (Pick(random, 0, 1))
    given.Add(Floats(random, {Near(random, n, &given.valid)}),
              Pick(random, 0, 1), random, "bias");
  else if (Pick(random, 0, 1))
    given.AddNothing();
  if (!Pick(random, 0, 50)) given.DeclareHuge(random);
  return given;
}

Case ChainCase(Random& random) {
  const auto& all = bitsearch::TernaryChainOps();
  const auto lengths = static_cast<int64_t>(all.size()) / 2;
  const int64_t length = Pick(random, 2, lengths + 1);
  const bool normal = Pick(random, 0, 1);
  Case given{all[length - 2 + normal * lengths], {}, {}, 1};
  auto& attributes = given.info.attributes;
  constexpr const char* kFunctions[] = {"relu", "leaky-relu", "silu", "gelu",
                                        "tanh"};
  const int64_t function = Pick(random, 0, 40) ? Pick(random, 0, 3) : 4;
  attributes["activation"] = std::string(kFunctions[function]);
  given.valid = function < 4;
  if (Pick(random, 0, 1)) attributes["alpha"] = 0.5f;
  if (Pick(random, 0, 1)) attributes["act_qmax"] = 127.0f;
  if (normal && Pick(random, 0, 1)) attributes["epsilon"] = 1e-3f;
  for (const char* name : {"alpha", "act_qmax", "K0", "K1"})
    Spoil(random, name, &given);
  Shape x = Batch(random);
  if (!Pick(random, 0, 20)) x = {Pick(random, 60, 300)};
  int64_t k = Pick(random, 1, 40);
  x.push_back(Near(random, k, &given.valid));
  given.Add(Floats(random, x), false, random, "X");
  for (int64_t i = 0; i < length; ++i) {
    attributes.insert({"K" + std::to_string(i), k});  // unless it is spoiled
    const int64_t n = Pick(random, 1, 40);
    bool has_three = false;
    given.Add(
        Codes(random, {n, Near(random, (k + 3) / 4, &given.valid)}, &has_three),
        Pick(random, 0, 3), random, "W");
    given.valid &= !has_three;
    Shape scale;
    if (Pick(random, 0, 1)) scale = {Near(random, n, &given.valid)};
    given.Add(Floats(random, scale), Pick(random, 0, 3), random, "scale");
    given.Add(Floats(random, {Near(random, n, &given.valid)}),
              Pick(random, 0, 3), random, "bias");
    for (const char* role : {"gain", "shift"})
      if (normal && i + 1 < length)
        given.Add(Floats(random, {Near(random, n, &given.valid)}),
                  Pick(random, 0, 3), random, role);
    k = i + 2 < length ? Near(random, n, &given.valid) : n;
  }
  if (!Pick(random, 0, 50)) given.DeclareHuge(random);
  return given;
}

Case SplineCase(Random& random) {
  Case given{&bitsearch::MonotoneSplineOp(), {}, {}, 2};
  const bool cubic = Pick(random, 0, 1);
  const int64_t bins = Pick(random, 2, 12);
  auto& attributes = given.info.attributes;
  attributes["kind"] = std::string(cubic ? "cubic" : "rational-quadratic");
  attributes["bins"] = bins;
  attributes["bound"] = 4.0f;
  if (Pick(random, 0, 1)) attributes["inverse"] = Pick(random, 0, 1);
  if (Pick(random, 0, 1)) attributes["out_of_bounds"] = std::string("event");
  for (const char* name : {"kind", "bins", "bound", "inverse", "out_of_bounds"})
    Spoil(random, name, &given);
  if (!Pick(random, 0, 60)) {
    attributes["bins"] = INT64_MAX;
    given.valid = false;
  }
  const int64_t parameters = cubic ? 2 * bins + 2 : 3 * bins - 1;
  Shape x = Batch(random), theta = x;
  const int64_t size = Pick(random, 0, 20);
  given.valid &= size > 0;
  x.push_back(size);
  theta.push_back(Near(random, size * parameters, &given.valid));
  given.Add(Floats(random, x), false, random, "X");
  given.Add(Floats(random, theta), Pick(random, 0, 1), random, "theta");
  if (!Pick(random, 0, 20)) {
    given.DeclareHuge(random);
    // Only against a known length is it found out before the run.
    const auto &declared_x = given.info.declared[0],
               &declared = given.info.declared[1];
    if (declared_x && !declared_x->empty() && (!declared || declared->empty()))
      given.info.declared[1] = Shape(declared_x->size(), -1);
  }
  return given;
}

Case MessageCase(Random& random) {
  Case given{&bitsearch::MessagePassingOp(), {}, {}, 1};
  auto& attributes = given.info.attributes;
  attributes["squared_radius"] = 1.0f;
  attributes["weighted"] = Pick(random, 0, 1);
  attributes["slope"] = 0.01f;
  for (const char* name : {"act_qmax1", "act_qmax2"})
    attributes[name] = Pick(random, 0, 1) ? 127.0f : 0.0f;
  for (const char* name :
       {"squared_radius", "weighted", "slope", "act_qmax1", "act_qmax2"})
    Spoil(random, name, &given);
  const int64_t jets = Pick(random, 0, 4), particles = Pick(random, 0, 40);
  const int64_t features = Pick(random, 0, 6);
  int64_t inputs = 3 * features + 2;
  given.Add(Floats(random, {jets, particles}), false, random, "pt");
  given.Add(
      Floats(random, {jets, Near(random, particles, &given.valid), features}),
      false, random, "features");
  given.Add(Floats(random, {jets, particles, Near(random, 2, &given.valid)}),
            false, random, "position");
  for (const char* name : {"W1", "W2"}) {
    const int64_t outputs = Pick(random, 1, 12);
    given.Add(Floats(random, {outputs, Near(random, inputs, &given.valid)}),
              Pick(random, 0, 1), random, name);
    for (const char* role : {"scale", "bias"})
      given.Add(Floats(random, {Near(random, outputs, &given.valid)}),
                Pick(random, 0, 1), random, role);
    inputs = outputs;
  }
  return given;
}

OrtValue Axes(Random& random, int64_t rank, bool* valid) {
  const int64_t first = Pick(random, 0, rank - 1);
  const int64_t count = Pick(random, 1, rank - first);
  OrtValue value{{count}, std::unique_ptr<uint8_t[]>(new uint8_t[count * 8])};
  for (int64_t i = 0; i < count; ++i) {
    int64_t axis = first + i - (Pick(random, 0, 1) ? rank : 0);
    if (!Pick(random, 0, 40)) axis += 2 * rank;
    *valid &= axis < rank;
    std::memcpy(&value.bytes[8 * i], &axis, 8);
  }
  return value;
}

Case ColumnsCase(Random& random) {
  Case given{&bitsearch::SelectColumnsOp(), {}, {}, 1};
  const int64_t rows = Pick(random, 0, 5), p = Pick(random, 0, 9),
                q = Pick(random, 0, 9);
  const int64_t m = p + q ? Pick(random, 0, 20) : 0;
  given.Add(Floats(random, {rows, p}), false, random, "A");
  given.Add(Floats(random, {Near(random, rows, &given.valid), q}), false,
            random, "C");
  OrtValue index{{m}, std::unique_ptr<uint8_t[]>(new uint8_t[m * 8])};
  for (int64_t i = 0; i < m; ++i) {
    int64_t column = Pick(random, 0, p + q - 1);
    if (!Pick(random, 0, 400)) column -= 2 * (p + q);
    given.valid &= column >= 0;
    std::memcpy(&index.bytes[8 * i], &column, 8);
  }
  given.Add(std::move(index), Pick(random, 0, 1), random, "index");
  for (const char* role : {"offset", "factor"})
    given.Add(Floats(random, {Near(random, m, &given.valid)}),
              Pick(random, 0, 1), random, role);
  return given;
}

// One of the reproducible operators, in the order of ReproducibleOps().
Case ReproducibleCase(Random& random) {
  enum { kMatMul, kGemm, kReduceSum, kSoftmax, kLayerNormalization, kFirst };
  static const auto operators = bitsearch::ReproducibleOps();
  const int64_t which =
      Pick(random, 0, static_cast<int64_t>(operators.size()) - 1);
  Case given{operators[which], {}, {}, 1};
  auto& attributes = given.info.attributes;
  const int64_t k = Pick(random, 0, 70), n = Pick(random, 0, 40);
  Shape x = Batch(random);
  const bool constant = Pick(random, 0, 1);
  const auto add = [&](Shape shape, bool is_constant, const char* name) {
    given.Add(Floats(random, std::move(shape)), is_constant, random, name);
  };
  if (which == kMatMul) {
    Shape b = x;
    if (Pick(random, 0, 1)) b.clear();
    if (Pick(random, 0, 1) && !b.empty()) b[0] = 1;
    b.push_back(Near(random, k, &given.valid));
    b.push_back(n);
    x.push_back(Pick(random, 0, 9));
    x.push_back(k);
    add(x, false, "A");
    add(b, constant, "B");
  } else if (which == kGemm) {
    const bool transposed = Pick(random, 0, 1);
    if (transposed) attributes["transB"] = int64_t{1};
    Spoil(random, "transB", &given);
    Shape b{Near(random, k, &given.valid), n};
    if (transposed) std::swap(b[0], b[1]);
    add({Pick(random, 0, 9), k}, false, "A");
    add(b, constant, "B");
    add({Near(random, n, &given.valid)}, constant, "C");
  } else if (which == kReduceSum) {
    if (Pick(random, 0, 1)) attributes["keepdims"] = Pick(random, 0, 1);
    Spoil(random, "keepdims", &given);
    x.push_back(k);
    add(x, false, "data");
    given.Add(Axes(random, static_cast<int64_t>(x.size()), &given.valid),
              constant, random, "axes");
  } else {
    x.push_back(which < kFirst ? std::max<int64_t>(k, 1) : k);
    add(x, false, "X");
    if (which == kLayerNormalization) {
      add({Near(random, x.back(), &given.valid)}, constant, "Scale");
      add({Near(random, x.back(), &given.valid)}, constant, "B");
      Spoil(random, "epsilon", &given);
    }
    if (which < kFirst) {
      const auto rank = static_cast<int64_t>(x.size());
      attributes["axis"] = Pick(random, 0, 1) ? rank - 1 : int64_t{-1};
      Spoil(random, "axis", &given);
    }
  }
  return given;
}

// The message of a refusal, or nothing.
std::string Try(const Case& given) {
  void* kernel = nullptr;
  const auto message = [](OrtStatus* status) {
    const std::unique_ptr<OrtStatus> owner(status);
    return status ? status->message : std::string();
  };
  if (OrtStatus* status =
          given.op->CreateKernelV2(given.op, &kApi, &given.info, &kernel))
    return message(status);
  OrtKernelContext context;
  for (const auto& value : given.values) context.inputs.push_back(value.get());
  context.outputs.resize(given.outputs);
  const std::string refusal =
      message(given.op->KernelComputeV2(kernel, &context));
  given.op->KernelDestroy(kernel);
  for (const OrtValue& output : context.outputs)
    for (int64_t i = 0; refusal.empty() && i < Count(output.shape) * 4; i += 4)
      if (!std::memcmp(&output.bytes[i], "\xa5\xa5\xa5\xa5", 4))
        return "an output was not written";
  return refusal;
}

// Cases until the time is over; the number of them, or exits.
int Fuzz(uint64_t seed, double seconds) {
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  int cases = 0;
  for (; std::chrono::steady_clock::now() < end; ++cases) {
    Random random(seed + cases);
    constexpr Case (*kCases[])(Random&) = {TernaryCase, SplineCase,
                                           ChainCase,   MessageCase,
                                           ColumnsCase, ReproducibleCase};
    const Case given = kCases[cases % std::size(kCases)](random);
    const std::string refusal = Try(given);
    const bool worded = refusal.find(": found ") != std::string::npos;
    if (given.valid == refusal.empty() && (given.valid || worded)) continue;
    std::printf("seed %llu: expected %s, found '%s'\n",
                static_cast<unsigned long long>(seed + cases),
                given.valid ? "numbers" : "a refusal", refusal.c_str());
    std::fflush(stdout);
    std::_Exit(1);  // at once: the other thread still reads what exit destroys
  }
  return cases;
}

}  // namespace

int main(int count, char** arguments) {
  OrtSessionOptions options{};
  for (int i = 0; i < 2; ++i)
    if (RegisterCustomOps(&options, &kBase) || options.domains != 1) return 1;
  const int cases = FuzzInTwoThreads(count, arguments, Fuzz);
  std::printf("%d cases of operators, as expected\n", cases);
}
