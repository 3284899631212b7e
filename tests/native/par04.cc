// Calls a generator as Geant4's example Par04 does: par04 MODEL SHOWERS OUT
// LATENT [LIBRARY]. SHOWERS holds a row of doubles for each shower: LATENT
// normal numbers, then the energy in MeV. OUT gets the mesh's energies in MeV,
// and the median time of a call is printed in microseconds. LATENT 0 is the
// convention of CaloDiT-2. Par04 itself knows no LIBRARY.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace {

constexpr int kCells = 9 * 16 * 45;
constexpr float kMaxEnergyMev = 1024000.0f;
constexpr float kTheta = 1.5707964f;

std::vector<double> Read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  const auto* begin = reinterpret_cast<const double*>(bytes.data());
  return {begin, begin + bytes.size() / sizeof(double)};
}

// What Par04 puts behind the normal numbers, or asks CaloDiT-2.
std::vector<float> Conditions(const double* row, size_t latent) {
  const double mev = row[latent];
  if (!latent)
    return {static_cast<float>(mev / 1000), 1.5f, kTheta, 1, 0, 0, 0, 0};
  std::vector<float> asked(row, row + latent);
  asked.insert(asked.end(), {static_cast<float>(mev / kMaxEnergyMev), 1, 0, 1});
  return asked;
}

// Names are asked for in each call, the last input gets the tensor, and the
// first output is read as the mesh.
std::vector<double> Energies(Ort::Session& session, std::vector<float> asked) {
  Ort::AllocatorWithDefaultOptions allocator;
  std::vector<Ort::AllocatedStringPtr> names;
  std::vector<const char*> inputs, outputs;
  for (size_t i = 0; i < session.GetInputCount(); ++i) {
    names.push_back(session.GetInputNameAllocated(i, allocator));
    inputs = {names.back().get()};
  }
  for (size_t i = 0; i < session.GetOutputCount(); ++i) {
    names.push_back(session.GetOutputNameAllocated(i, allocator));
    outputs.push_back(names.back().get());
  }
  const int64_t shape[] = {1, static_cast<int64_t>(asked.size())};
  const Ort::Value value = Ort::Value::CreateTensor<float>(
      Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault),
      asked.data(), asked.size(), shape, 2);
  const auto found = session.Run(Ort::RunOptions{nullptr}, inputs.data(),
                                 &value, 1, outputs.data(), outputs.size());
  const float* cells = found.front().GetTensorData<float>();
  return {cells, cells + kCells};
}

void Simulate(int count, char** words) {
  const std::vector<double> showers = Read(words[2]);
  const size_t latent = std::strtoul(words[4], nullptr, 10);
  const Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "ENV");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  options.SetGraphOptimizationLevel(ORT_DISABLE_ALL);
  if (count > 5) options.RegisterCustomOpsLibrary(words[5]);
  Ort::Session session(env, words[1], options);
  std::ofstream out(words[3], std::ios::binary);
  std::vector<double> times;
  for (size_t i = 0; i + latent < showers.size(); i += latent + 1) {
    const auto start = std::chrono::steady_clock::now();
    auto energies = Energies(session, Conditions(&showers[i], latent));
    const std::chrono::duration<double, std::micro> spent =
        std::chrono::steady_clock::now() - start;
    times.push_back(spent.count());
    const double unit = latent ? showers[i + latent] : 1000;
    for (double& energy : energies) energy *= unit;
    out.write(reinterpret_cast<const char*>(energies.data()),
              static_cast<std::streamsize>(kCells * sizeof(double)));
  }
  std::sort(times.begin(), times.end());
  std::printf("%.1f\n", times.at(times.size() / 2));
}

}  // namespace

int main(int count, char** words) try {
  if (count < 5) return 2;
  Simulate(count, words);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
