// Serves an exported file: serve MODEL OUT IN... reads one file of float32 for
// each input, writes the first output to OUT and prints the time of a call. The
// batch is as large as the inputs' files say.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int kCalls = 20;

std::vector<float> Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  const auto* begin = reinterpret_cast<const float*>(bytes.data());
  return {begin, begin + bytes.size() / sizeof(float)};
}

// The input's shape with its batch, the first axis, from the number of values.
std::vector<int64_t> Shape(const Ort::Session& session, size_t input,
                           size_t count) {
  auto shape =
      session.GetInputTypeInfo(input).GetTensorTypeAndShapeInfo().GetShape();
  int64_t row = 1;
  for (size_t i = 1; i < shape.size(); ++i) row *= shape[i];
  if (!shape.empty() && row > 0) shape[0] = static_cast<int64_t>(count) / row;
  return shape;
}

void Serve(const std::string& model, const std::string& out,
           const std::vector<std::string>& inputs) {
  Ort::Env env;
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
#ifdef BITSEARCH_OPS
  // Once, before sessions are created; without it the file runs too, slower.
  options.RegisterCustomOpsLibrary(BITSEARCH_OPS);
#endif
  Ort::Session session(env, model.c_str(), options);
  if (session.GetInputCount() != inputs.size())
    throw std::invalid_argument("found " + std::to_string(inputs.size()) +
                                " inputs, expected " +
                                std::to_string(session.GetInputCount()));
  Ort::AllocatorWithDefaultOptions allocator;
  const auto memory =
      Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  std::vector<std::vector<float>> data;
  std::vector<std::string> names;
  std::vector<Ort::Value> values;
  for (size_t i = 0; i < inputs.size(); ++i) {
    data.push_back(Read(inputs[i]));
    names.push_back(session.GetInputNameAllocated(i, allocator).get());
    const auto shape = Shape(session, i, data[i].size());
    values.push_back(Ort::Value::CreateTensor<float>(
        memory, data[i].data(), data[i].size(), shape.data(), shape.size()));
  }
  std::vector<const char*> feeds;
  for (const std::string& name : names) feeds.push_back(name.c_str());
  const std::string fetch = session.GetOutputNameAllocated(0, allocator).get();
  const char* fetches[] = {fetch.c_str()};
  std::vector<double> times;
  std::vector<Ort::Value> results;
  for (int i = 0; i < kCalls; ++i) {
    const auto start = std::chrono::steady_clock::now();
    results = session.Run(Ort::RunOptions(), feeds.data(), values.data(),
                          values.size(), fetches, 1);
    const std::chrono::duration<double, std::micro> spent =
        std::chrono::steady_clock::now() - start;
    times.push_back(spent.count());
  }
  std::nth_element(times.begin(), times.begin() + kCalls / 2, times.end());
  const size_t count = results[0].GetTensorTypeAndShapeInfo().GetElementCount();
  std::ofstream(out, std::ios::binary)
      .write(reinterpret_cast<const char*>(results[0].GetTensorData<float>()),
             static_cast<std::streamsize>(count * sizeof(float)));
  std::printf("%zu numbers, %.1f us a call\n", count, times[kCalls / 2]);
}

}  // namespace

int main(int count, char** words) {
  if (count < 4) {
    std::fprintf(stderr, "usage: serve MODEL OUT IN...\n");
    return 2;
  }
  try {
    Serve(words[1], words[2], {words + 3, words + count});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "serve: %s\n", error.what());
    return 1;
  }
}
