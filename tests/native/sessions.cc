// A program that knows nothing of the operators: sessions MODEL THREADS
// [LIBRARY]. Each thread opens the file from its path and from memory, with
// options and without, and runs it on ones. Prints the runtime's version and
// the outputs' sums, equal ones once. A LIBRARY is registered twice in each
// thread's options, and in a copy; without options is left out then.
#define ORT_API_MANUAL_INIT
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

int main(int count, char** words) try {
  Ort::InitApi(OrtGetApiBase()->GetApi(17));  // of onnxruntime 1.17 and newer
  const Ort::Env env;
  std::ifstream file(words[1], std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::mutex mutex;
  std::set<double> sums;
  std::string failure;
  auto work = [&] {
    try {
      Ort::SessionOptions options;
      for (int i = 0; i < 2 && count > 3; ++i)
        options.RegisterCustomOpsLibrary(words[3]);
      std::vector<Ort::Session> sessions;
      sessions.emplace_back(env, words[1], options);
      sessions.emplace_back(env, bytes.data(), bytes.size(), options);
      Ort::SessionOptions copy = options.Clone();
      if (count == 3)
        sessions.emplace_back(env, words[1], Ort::SessionOptions{nullptr});
      else
        copy.RegisterCustomOpsLibrary(words[3]);
      sessions.emplace_back(env, words[1], copy);
      for (Ort::Session& session : sessions) {
        const double sum = Sum(session);
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
  std::printf("%s\n", OrtGetApiBase()->GetVersionString());
  for (const double sum : sums) std::printf("%.9g\n", sum);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
