// The arithmetic of MonotoneSpline, Eqs. (14) to (26). One lane is one value:
// nothing is added across lanes, and bins are found by comparing, not by
// branching or gathering.
#include <algorithm>

#include "monotone_spline/math-inl.h"
#include "monotone_spline/spline.h"

namespace bitsearch {
namespace {

constexpr float kSmallest = 1e-3f;     // bin size, slope
constexpr float kLargestLogit = 1e6f;  // of a slope
constexpr int kNewtonSteps = 8;
constexpr float kTiny = std::numeric_limits<float>::min();

// Eq. (15): bin sizes in place of logits, widths and heights side by side to
// keep more independent operations in flight.
SPLINE_INLINE void Sizes(Float* widths, Float* heights, int bins) {
  Float largest_w = widths[0], largest_h = heights[0];
  for (int j = 1; j < bins; ++j) {
    largest_w = Max(largest_w, widths[j]);
    largest_h = Max(largest_h, heights[j]);
  }
  Float sum_w{}, sum_h{};
  for (int j = 0; j < bins; ++j) {
    sum_w += widths[j] = Exp(widths[j] - largest_w);
    sum_h += heights[j] = Exp(heights[j] - largest_h);
  }
  const float rest = 1.0f - kSmallest * static_cast<float>(bins);
  const Float share_w = rest / sum_w, share_h = rest / sum_h;
  for (int j = 0; j < bins; ++j) {
    widths[j] = widths[j] * share_w + kSmallest;
    heights[j] = heights[j] * share_h + kSmallest;
  }
}

// The bin of every value, and what stands on its two sides: logits of slopes
// for the rational quadratic, sizes of neighbours for the cubic. At the ends
// of the domain they are those of some other bin.
struct Bin {
  Float x, y;  // left lower corner
  Float w, h;
  Float before[2], after[2];
  Int first, last;
};

// Eq. (16): the last bin whose edge does not exceed the position.
template <bool kCubic, bool kInverse>
SPLINE_INLINE Bin Find(const Float* widths, const Float* heights,
                       const Float* logits, int bins, Float position) {
  Bin bin;
  bin.x = bin.y = Float{};
  bin.w = widths[0];
  bin.h = heights[0];
  bin.before[0] = bin.after[0] = kCubic ? widths[1] : logits[0];
  bin.before[1] = bin.after[1] = heights[1];
  Float x = widths[0], y = heights[0];
  bin.first = position < (kInverse ? y : x);
  for (int j = 1; j < bins; ++j) {
    const Int beyond = position >= (kInverse ? y : x);
    const int next = std::min(j + 1, bins - 1);
    bin.x = beyond ? x : bin.x;
    bin.y = beyond ? y : bin.y;
    bin.w = beyond ? widths[j] : bin.w;
    bin.h = beyond ? heights[j] : bin.h;
    if (kCubic) {
      bin.before[0] = beyond ? widths[j - 1] : bin.before[0];
      bin.before[1] = beyond ? heights[j - 1] : bin.before[1];
      bin.after[0] = beyond ? widths[next] : bin.after[0];
      bin.after[1] = beyond ? heights[next] : bin.after[1];
    } else {
      bin.before[0] = beyond ? logits[j - 1] : bin.before[0];
      bin.after[0] = beyond ? logits[next - 1] : bin.after[0];
    }
    bin.last = beyond;
    x += widths[j];
    y += heights[j];
  }
  return bin;
}

SPLINE_INLINE Float Clamp(Float x) { return Min(Max(x, Float{}), Splat(1)); }

// Eqs. (17) to (20).
template <bool kInverse>
SPLINE_INLINE Float RationalQuadratic(const Bin& bin, Float position,
                                      Float* log_slope) {
  const Float limit = Splat(kLargestLogit), one = Splat(1);
  const Float slope_0 = Softplus(Min(bin.before[0], limit)) + kSmallest;
  const Float slope_1 = Softplus(Min(bin.after[0], limit)) + kSmallest;
  const Float d_0 = bin.first ? one : slope_0;
  const Float d_1 = bin.last ? one : slope_1;
  const Float h = bin.h, s = h / bin.w;
  const Float curvature = (d_0 + d_1) - s * 2.0f;
  Float xi = (position - bin.x) / bin.w;
  if (kInverse) {
    const Float t = position - bin.y;
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
  return kInverse ? bin.x + bin.w * xi
                  : bin.y + h * (s * (xi * xi) + d_0 * mixed) / denominator;
}

// Eq. (21): the slope at the knot between two bins.
SPLINE_INLINE Float Steffen(Float w_0, Float s_0, Float w_1, Float s_1) {
  return Min(Min(s_0, s_1), (w_1 * s_0 + w_0 * s_1) * 0.5f / (w_0 + w_1)) *
         2.0f;
}

// Eq. (23).
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

// Eqs. (21) to (25). `logits` are those of the two end slopes.
template <bool kInverse>
SPLINE_INLINE Float Cubic(const Bin& bin, const Float* logits, Float position,
                          Float* log_slope) {
  const Float w = bin.w, h = bin.h, s = h / w;
  const Float s_0 = bin.before[1] / bin.before[0];
  const Float s_1 = bin.after[1] / bin.after[0];
  const Float end =
      Sigmoid(bin.first ? logits[0] : logits[1]) * (s * 3.0f - 2 * kSmallest) +
      kSmallest;
  const Float d_0 = bin.first ? end : Steffen(bin.before[0], s_0, w, s);
  const Float d_1 = bin.last ? end : Steffen(w, s, bin.after[0], s_1);
  const Float c = d_0 / s, e = d_1 / s;
  const Float a = (c + e) - 2.0f;
  const Float b = (3.0f - c * 2.0f) - e;
  const Float q = Clamp(kInverse ? SolveCubic((position - bin.y) / h, a, b, c)
                                 : (position - bin.x) / w);
  if (log_slope) {
    const Float slope = Max((a * 3.0f * q + b * 2.0f) * q + c, Splat(kTiny));
    *log_slope = Log(s) + Log(slope);
  }
  return kInverse ? bin.x + w * q : bin.y + h * (((a * q + b) * q + c) * q);
}

// Eqs. (14) and (26) for kLanes values.
template <bool kCubic, bool kInverse>
SPLINE_INLINE Float Values(const Spline& spline, Float x, const float* theta,
                           Float* log_slope) {
  Float columns[3 * kMaxBins];
  const int bins = spline.bins, parameters = spline.parameters();
  const float bound = spline.bound;
  Transpose(theta, parameters, columns);
  Float poison{};  // NaN where a parameter is NaN or infinite
  for (int j = 0; j < parameters; ++j) poison += columns[j] - columns[j];
  Float *widths = columns, *heights = columns + bins, *rest = heights + bins;
  Sizes(widths, heights, bins);
  const Int inside = (x >= -bound) & (x <= bound);
  const Float position = ((inside ? x : Float{}) + bound) / (2 * bound);
  const Bin bin = Find<kCubic, kInverse>(widths, heights, rest, bins, position);
  const Float unit =
      kCubic ? Cubic<kInverse>(bin, rest, position, log_slope)
             : RationalQuadratic<kInverse>(bin, position, log_slope);
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
    if (live < kLanes) {
      std::fill_n(std::copy_n(rows, live * parameters, padded),
                  (kLanes - live) * parameters, 0.0f);
      rows = padded;
    }
    Float values{}, slopes;
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
