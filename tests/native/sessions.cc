// A program that knows nothing of the operators: sessions MODEL THREADS. Each
// thread opens the file from its path and from memory, with options and
// without, and runs it on ones. Prints the outputs' sums, equal ones once.
#include <onnxruntime_cxx_api.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace {

double Sum(Ort::Session& session) {
  Ort::AllocatorWithDefaultOptions allocator;
  auto shape =
      session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
  int64_t count = 1;
  for (int64_t& size : shape) count *= size = size < 0 ? 3 : size;
  std::vector<float> ones(count, 1.0f);
  const Ort::Value value = Ort::Value::CreateTensor<float>(
      Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault),
      ones.data(), ones.size(), shape.data(), shape.size());
  const auto input = session.GetInputNameAllocated(0, allocator);
  const auto output = session.GetOutputNameAllocated(0, allocator);
  const char *inputs[] = {input.get()}, *outputs[] = {output.get()};
  const auto results =
      session.Run(Ort::RunOptions(), inputs, &value, 1, outputs, 1);
  double sum = 0;
  const size_t size = results[0].GetTensorTypeAndShapeInfo().GetElementCount();
  for (size_t i = 0; i < size; ++i) sum += results[0].GetTensorData<float>()[i];
  return sum;
}

}  // namespace

int main(int, char** words) try {
  const Ort::Env env;
  std::ifstream file(words[1], std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::mutex mutex;
  std::set<double> sums;
  std::string failure;
  auto work = [&] {
    try {
      const Ort::SessionOptions options;
      Ort::Session from_path(env, words[1], options);
      Ort::Session from_memory(env, bytes.data(), bytes.size(), options);
      Ort::Session without_options(env, words[1], Ort::SessionOptions{nullptr});
      for (auto* session : {&from_path, &from_memory, &without_options}) {
        const double sum = Sum(*session);
        const std::lock_guard<std::mutex> lock(mutex);
        sums.insert(sum);
      }
    } catch (const std::exception& error) {
      const std::lock_guard<std::mutex> lock(mutex);
      failure = error.what();
    }
  };
  std::vector<std::thread> threads;
  for (int i = std::atoi(words[2]); i > 0; --i) threads.emplace_back(work);
  for (auto& thread : threads) thread.join();
  if (!failure.empty()) throw std::runtime_error(failure);
  for (const double sum : sums) std::printf("%.9g\n", sum);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
