// Eqs. (28) to (36) for one jet; lanes are senders. Included once by each
// kernel_<isa>.cc.
#include "message_passing/messages.h"
#include "monotone_spline/math-inl.h"

namespace bitsearch {
namespace {

constexpr int kVectors = 2;  // that share the loads of weights
constexpr int64_t kSenders = kVectors * kLanes;
constexpr float kGammaFloor = 1e-8f;
constexpr float kSmallestWeight = 1e-12f;
constexpr int32_t kMagnitude = 0x7fffffff, kInfinity = 0x7f800000;

SPLINE_INLINE Float Load(const float* from) {
  Float value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
SPLINE_INLINE void Store(Float value, float* to) {
  __builtin_memcpy(to, &value, sizeof value);
}

// What lies in the scratch memory: columns over all particles, then rows of the
// senders that are looked at.
struct Memory {
  int64_t width;  // of a column
  float *pt, *x, *y, *cos, *sin, *weight, *features;
  float *rows, *hidden, *out, *sums;

  Memory(const Messages& m, int64_t particles, float* memory)
      : width(RoundUp(particles, kSenders)) {
    for (float** column : {&pt, &x, &y, &cos, &sin, &weight, &features}) {
      *column = memory;
      memory += width;
    }
    rows = features + width * m.features;
    hidden = rows + m.first.inputs * kSenders;
    out = hidden + m.first.outputs * kSenders;
    sums = out + m.second.outputs * kSenders;
  }
};

int64_t Floats(const Messages& m, int64_t particles) {
  const int64_t rows = m.first.inputs + m.first.outputs + m.second.outputs;
  return RoundUp(particles, kSenders) * (6 + m.features) + rows * kSenders +
         m.second.outputs * kPartials;
}

// Eq. (35): adds up partial sums, in place.
inline float Total(float* partial) {
  for (int half = kPartials / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) partial[i] += partial[i + half];
  return partial[0];
}

// Eqs. (3) to (6) in place, rows [inputs][kSenders].
SPLINE_INLINE void Quantize(const MessageLayer& layer, float* rows,
                            Float* step) {
  const float q_max = layer.act_qmax;
  Float inverse[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    Int largest{};
    for (int64_t k = 0; k < layer.inputs; ++k) {
      const Float x = Load(rows + k * kSenders + v * kLanes);
      const Int size = reinterpret_cast<Int>(x) & kMagnitude;
      largest = size > largest ? size : largest;
    }
    const Float gamma =
        Max(reinterpret_cast<Float>(largest), Splat(kGammaFloor));
    inverse[v] = q_max / gamma;
    step[v] = largest < kInfinity
                  ? gamma / q_max
                  : Splat(std::numeric_limits<float>::quiet_NaN());
  }
  const Float high = Splat(std::min(q_max, 127.0f));
  for (int64_t k = 0; k < layer.inputs; ++k)
    for (int v = 0; v < kVectors; ++v) {
      float* x = rows + k * kSenders + v * kLanes;
      const Float rounded = (Load(x) * inverse[v] + kRound) - kRound;
      Store(Min(rounded, high), x);
    }
}

// Eqs. (32) and (33): rows [inputs][kSenders], which it overwrites, to y
// [outputs][kSenders].
SPLINE_INLINE void Multiply(const MessageLayer& layer, float* rows, float* y) {
  Float step[kVectors];
  for (int v = 0; v < kVectors; ++v) step[v] = Splat(1);
  if (layer.act_qmax != 0) Quantize(layer, rows, step);
  const float* w = layer.weight.data();
  for (int64_t n = 0; n < layer.outputs; n += kTogether) {
    // Names, since gcc 12 keeps an array of vectors in memory.
    Float a0{}, a1{}, b0{}, b1{}, c0{}, c1{}, d0{}, d1{};
    for (int64_t k = 0; k < layer.inputs; ++k, w += kTogether) {
      const Float x0 = Load(rows + k * kSenders);
      const Float x1 = Load(rows + k * kSenders + kLanes);
      a0 += x0 * w[0], a1 += x1 * w[0];
      b0 += x0 * w[1], b1 += x1 * w[1];
      c0 += x0 * w[2], c1 += x1 * w[2];
      d0 += x0 * w[3], d1 += x1 * w[3];
    }
    const Float sums[kTogether][kVectors] = {
        {a0, a1}, {b0, b1}, {c0, c1}, {d0, d1}};
    for (int i = 0; i < kTogether; ++i)
      for (int v = 0; v < kVectors && n + i < layer.outputs; ++v)
        Store(sums[i][v] * (step[v] * layer.scale[n + i]) + layer.bias[n + i],
              y + (n + i) * kSenders + v * kLanes);
  }
}

// Eqs. (28) and (29): weights of all senders to particle i; their sum.
SPLINE_INLINE float Weigh(const Messages& m, const Memory& memory, int64_t i) {
  float partial[kPartials] = {};
  for (int64_t j = 0; j < memory.width; j += kLanes) {
    const Float pt = Load(memory.pt + j);
    const Float dx = memory.x[i] - Load(memory.x + j);
    const Float dy = memory.y[i] - Load(memory.y + j);
    const Int edge = (pt != 0.0f) & (dx * dx + dy * dy <= m.squared_radius);
    const Float weight = edge ? (m.weighted ? pt : Splat(1)) : Float{};
    Store(weight, memory.weight + j);
    float* sum = partial + j % kPartials;
    Store(Load(sum) + weight, sum);
  }
  return Total(partial);
}

// Eq. (31): what the senders from j on tell particle i, [inputs][kSenders].
SPLINE_INLINE void Rows(const Messages& m, const Memory& memory, int64_t i,
                        int64_t j) {
  for (int v = 0; v < kVectors; ++v, j += kLanes) {
    float* row = memory.rows + v * kLanes;
    const int64_t part = m.features * kSenders;
    for (int64_t f = 0; f < m.features; ++f, row += kSenders) {
      const float* column = memory.features + f * memory.width;
      const Float own = Splat(column[i]), other = Load(column + j);
      Store(own, row);
      Store(other, row + part);
      Store(other - own, row + 2 * part);
    }
    row += 2 * part;
    const Float cos = Load(memory.cos + j), sin = Load(memory.sin + j);
    const float own_cos = memory.cos[i], own_sin = memory.sin[i];
    Store(own_cos * cos + own_sin * sin, row);
    Store(own_sin * cos - own_cos * sin, row + kSenders);
  }
}

SPLINE_TARGET void Pass(const Messages& m, const Jet& jet, float* scratch) {
  const Memory memory(m, jet.particles, scratch);
  const int64_t outputs = m.second.outputs;
  std::fill(scratch, memory.rows, 0.0f);
  for (int64_t j = 0; j < jet.particles; ++j) {
    memory.pt[j] = jet.pt[j];
    memory.x[j] = jet.position[2 * j];
    memory.y[j] = jet.position[2 * j + 1];
    for (int64_t f = 0; f < m.features; ++f)
      memory.features[f * memory.width + j] = jet.features[j * m.features + f];
  }
  for (int64_t j = 0; j < memory.width; j += kLanes) {
    const Float x = Load(memory.x + j), y = Load(memory.y + j);
    const Float squared = x * x + y * y;
    const Float length = Sqrt(squared == 0.0f ? Splat(1) : squared);
    Store(x / length, memory.cos + j);
    Store(y / length, memory.sin + j);
  }
  for (int64_t i = 0; i < jet.particles; ++i) {
    float* y = jet.y + i * outputs;
    std::fill_n(memory.sums, outputs * kPartials, 0.0f);
    const float total =
        memory.pt[i] == 0 ? 0 : std::max(Weigh(m, memory, i), kSmallestWeight);
    for (int64_t j = 0; memory.pt[i] != 0 && j < memory.width; j += kSenders) {
      const float* weight = memory.weight + j;
      if (std::all_of(weight, weight + kSenders,
                      [](float w) { return w == 0; }))
        continue;
      Rows(m, memory, i, j);
      Multiply(m.first, memory.rows, memory.hidden);
      for (int64_t k = 0; k < m.first.outputs * kSenders; k += kLanes) {
        const Float z = Load(memory.hidden + k);
        Store(z > 0.0f ? z : z * m.slope, memory.hidden + k);
      }
      Multiply(m.second, memory.hidden, memory.out);
      for (int v = 0; v < kVectors; ++v) {
        const int64_t lane = v * kLanes;
        const Float own = Load(weight + lane), share = own / total;
        for (int64_t n = 0; n < outputs; ++n) {
          const Float message = Load(memory.out + n * kSenders + lane);
          float* sum = memory.sums + n * kPartials + (j + lane) % kPartials;
          Store(Load(sum) + (own != 0.0f ? message * share : Float{}), sum);
        }
      }
    }
    for (int64_t n = 0; n < outputs; ++n)
      y[n] = Total(memory.sums + n * kPartials);
  }
}

}  // namespace
}  // namespace bitsearch
