// The arithmetic of MonotoneSpline, Eqs. (13) to (25). One lane is one value:
// nothing is added across lanes, and bins are found by comparing, not by
// branching or gathering.
#include <algorithm>

#include "spline.h"
#include "spline_math.h"

namespace bitsearch {
namespace {

constexpr float kSmallest = 1e-3f;     // bin size, slope
constexpr float kLargestLogit = 1e6f;  // of a slope
constexpr int kNewtonSteps = 8;
constexpr float kTiny = std::numeric_limits<float>::min();

// Columns [parameters][kLanes] from theta [kLanes][parameters], in squares of
// 4 x 4 because strided loads cost more than all the arithmetic.
SPLINE_INLINE void Transpose(const float* theta, int parameters,
                             Float* columns) {
  using Quad = float __attribute__((vector_size(16)));
  for (int begin = 0; begin < parameters; begin += 4) {
    const int column = std::min(begin, parameters - 4);
    for (int lane = 0; lane < kLanes; lane += 4) {
      Quad row[4];
      for (int i = 0; i < 4; ++i)
        __builtin_memcpy(&row[i], theta + (lane + i) * parameters + column, 16);
      const Quad a = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
      const Quad b = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
      const Quad c = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
      const Quad d = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
      const Quad out[4] = {__builtin_shufflevector(a, b, 0, 1, 4, 5),
                           __builtin_shufflevector(a, b, 2, 3, 6, 7),
                           __builtin_shufflevector(c, d, 0, 1, 4, 5),
                           __builtin_shufflevector(c, d, 2, 3, 6, 7)};
      for (int i = 0; i < 4; ++i)
        __builtin_memcpy(reinterpret_cast<float*>(columns + column + i) + lane,
                         &out[i], 16);
    }
  }
}

// Eq. (14): bin sizes in place of logits.
SPLINE_INLINE void Sizes(Float* logits, int bins) {
  Float largest = logits[0];
  for (int j = 1; j < bins; ++j) largest = Max(largest, logits[j]);
  Float sum{};
  for (int j = 0; j < bins; ++j) {
    logits[j] = Exp(logits[j] - largest);
    sum += logits[j];
  }
  const Float share = (1.0f - kSmallest * static_cast<float>(bins)) / sum;
  for (int j = 0; j < bins; ++j) logits[j] = logits[j] * share + kSmallest;
}

struct Bin {
  Float edge, size;
};

// Eq. (15): the last bin whose edge does not exceed the position.
SPLINE_INLINE Int Find(const Float* size, int bins, Float position, Bin& bin) {
  bin = {Float{}, size[0]};
  Int index{};
  Float edge = size[0];
  for (int j = 1; j < bins; ++j) {
    const Int beyond = position >= edge;
    bin.edge = beyond ? edge : bin.edge;
    bin.size = beyond ? size[j] : bin.size;
    index -= beyond;  // true is -1
    edge += size[j];
  }
  return index;
}

SPLINE_INLINE Bin At(const Float* size, int bins, Int index) {
  Bin bin{Float{}, size[0]};
  Float edge = size[0];
  for (int j = 1; j < bins; ++j) {
    const Int beyond = index >= j;
    bin.edge = beyond ? edge : bin.edge;
    bin.size = beyond ? size[j] : bin.size;
    edge += size[j];
  }
  return bin;
}

// Values at `index` + offset where there are any, else zero.
SPLINE_INLINE Float Pick(const Float* values, int count, Int index,
                         int offset) {
  Float picked{};
  for (int j = 0; j < count; ++j)
    picked = index == j - offset ? values[j] : picked;
  return picked;
}

SPLINE_INLINE Float Clamp(Float x) { return Min(Max(x, Float{}), Splat(1)); }

// Eqs. (16) to (19). `logits` are those of the inner slopes.
template <bool kInverse>
SPLINE_INLINE Float RationalQuadratic(const Float* logits, int bins,
                                      Float position, Int index, Bin x, Bin y,
                                      Float* log_slope) {
  const Float limit = Splat(kLargestLogit);
  const Float left = Pick(logits, bins - 1, index, -1);
  const Float right = Pick(logits, bins - 1, index, 0);
  const Float one = Splat(1);
  const Float d_0 = index == 0 ? one : Softplus(Min(left, limit)) + kSmallest;
  const Float d_1 =
      index == bins - 1 ? one : Softplus(Min(right, limit)) + kSmallest;
  const Float h = y.size, s = h / x.size;
  const Float curvature = (d_0 + d_1) - s * 2.0f;
  Float xi = (position - x.edge) / x.size;
  if (kInverse) {
    const Float t = position - y.edge;
    const Float a = t * curvature + h * (s - d_0);
    const Float b = h * d_0 - t * curvature;
    const Float c = -(s * t);
    const Float root = Sqrt(Max(b * b - (a * c) * 4.0f, Float{}));
    // Whichever form does not subtract numbers of one sign.
    const Int rising = b >= 0.0f;
    xi = (rising ? c * 2.0f : root - b) / (rising ? -b - root : a * 2.0f);
  }
  xi = Clamp(xi);
  const Float eta = 1.0f - xi, mixed = xi * eta;
  const Float denominator = s + curvature * mixed;
  if (log_slope) {
    const Float numerator =
        (d_1 * (xi * xi) + (s * 2.0f) * mixed) + d_0 * (eta * eta);
    *log_slope = Log(s / denominator) * 2.0f + Log(numerator);
  }
  return kInverse ? x.edge + x.size * xi
                  : y.edge + h * (s * (xi * xi) + d_0 * mixed) / denominator;
}

// Eq. (20): the slope at the knot between two bins.
SPLINE_INLINE Float Steffen(Float w_0, Float s_0, Float w_1, Float s_1) {
  return Min(Min(s_0, s_1), (w_1 * s_0 + w_0 * s_1) * 0.5f / (w_0 + w_1)) *
         2.0f;
}

// Eq. (24).
SPLINE_INLINE Float SolveCubic(Float target, Float a, Float b, Float c) {
  Float low{}, high = Splat(1), q = Clamp(target);
  for (int step = 0; step < kNewtonSteps; ++step) {
    const Float residual = ((a * q + b) * q + c) * q - target;
    const Float slope = Max((a * 3.0f * q + b * 2.0f) * q + c, Splat(kTiny));
    const Int above = residual > 0.0f;
    low = above ? low : q;
    high = above ? q : high;
    const Float next = q - residual / slope;
    q = next >= low && next <= high ? next : (low + high) * 0.5f;
  }
  return q;
}

// Eqs. (20) to (25). `logits` are those of the two end slopes.
template <bool kInverse>
SPLINE_INLINE Float Cubic(const Float* logits, const Float* widths,
                          const Float* heights, int bins, Float position,
                          Int index, Bin x, Bin y, Float* log_slope) {
  const Float w = x.size, h = y.size, s = h / w;
  const Int first = index == 0, last = index == bins - 1;
  // Outside of the ends any positive number will do: it is not used.
  const Float one = Splat(1);
  const Float w_0 = first ? one : Pick(widths, bins, index, -1);
  const Float w_1 = last ? one : Pick(widths, bins, index, 1);
  const Float s_0 = Pick(heights, bins, index, -1) / w_0;
  const Float s_1 = Pick(heights, bins, index, 1) / w_1;
  const Float end =
      Sigmoid(first ? logits[0] : logits[1]) * (s * 3.0f - 2 * kSmallest) +
      kSmallest;
  const Float d_0 = first ? end : Steffen(w_0, s_0, w, s);
  const Float d_1 = last ? end : Steffen(w, s, w_1, s_1);
  const Float c = d_0 / s, e = d_1 / s;
  const Float a = (c + e) - 2.0f;
  const Float b = (3.0f - c * 2.0f) - e;
  const Float q = Clamp(kInverse ? SolveCubic((position - y.edge) / h, a, b, c)
                                 : (position - x.edge) / w);
  if (log_slope) {
    const Float slope = Max((a * 3.0f * q + b * 2.0f) * q + c, Splat(kTiny));
    *log_slope = Log(s) + Log(slope);
  }
  return kInverse ? x.edge + w * q : y.edge + h * (((a * q + b) * q + c) * q);
}

// Eqs. (13) and (25) for kLanes values.
template <bool kCubic, bool kInverse>
SPLINE_INLINE Float Values(const Spline& spline, Float x, const float* theta,
                           Float* log_slope) {
  Float columns[3 * kMaxBins];
  const int bins = spline.bins, parameters = spline.parameters();
  const float bound = spline.bound;
  Transpose(theta, parameters, columns);
  Float poison{};  // NaN where a parameter is NaN or infinite
  for (int j = 0; j < parameters; ++j) poison += columns[j] - columns[j];
  Float *widths = columns, *heights = columns + bins;
  Sizes(widths, bins);
  Sizes(heights, bins);
  const Int inside = (x >= -bound) & (x <= bound);
  const Float position = ((inside ? x : Float{}) + bound) / (2 * bound);
  Bin x_bin, y_bin;
  Int index;
  if (kInverse) {
    index = Find(heights, bins, position, y_bin);
    x_bin = At(widths, bins, index);
  } else {
    index = Find(widths, bins, position, x_bin);
    y_bin = At(heights, bins, index);
  }
  const Float* rest = columns + 2 * bins;
  const Float unit =
      kCubic ? Cubic<kInverse>(rest, widths, heights, bins, position, index,
                               x_bin, y_bin, log_slope)
             : RationalQuadratic<kInverse>(rest, bins, position, index, x_bin,
                                           y_bin, log_slope);
  if (log_slope) {
    const Float value = kInverse ? -*log_slope : *log_slope;
    *log_slope = inside ? value + poison : Float{};
  }
  return inside ? (unit * (2 * bound) - bound) + poison : x;
}

template <bool kCubic, bool kInverse, bool kSlope>
SPLINE_TARGET void TransformAll(const Spline& spline, const float* x,
                                const float* theta, int64_t count, float* y,
                                float* log_slope) {
  const int parameters = spline.parameters();
  float padded[3 * kMaxBins * kLanes];
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t live = std::min<int64_t>(kLanes, count - i);
    const float* rows = theta + i * parameters;
    Float values{}, slopes;
    if (live < kLanes) {
      std::fill_n(std::copy_n(rows, live * parameters, padded),
                  (kLanes - live) * parameters, 0.0f);
      rows = padded;
    }
    __builtin_memcpy(&values, x + i, live * sizeof(float));
    values = Values<kCubic, kInverse>(spline, values, rows,
                                      kSlope ? &slopes : nullptr);
    __builtin_memcpy(y + i, &values, live * sizeof(float));
    if (kSlope) __builtin_memcpy(log_slope + i, &slopes, live * sizeof(float));
  }
}

constexpr decltype(&TransformAll<false, false, false>) kTransforms[2][2][2] = {
    {{TransformAll<false, false, false>, TransformAll<false, false, true>},
     {TransformAll<false, true, false>, TransformAll<false, true, true>}},
    {{TransformAll<true, false, false>, TransformAll<true, false, true>},
     {TransformAll<true, true, false>, TransformAll<true, true, true>}}};

void Transform(const Spline& spline, const float* x, const float* theta,
               int64_t count, float* y, float* log_slope) {
  kTransforms[spline.cubic][spline.inverse][log_slope != nullptr](
      spline, x, theta, count, y, log_slope);
}

}  // namespace
}  // namespace bitsearch
