"""The numpy truth of `com.bithep::MonotoneSpline`; equation numbers are those of the README beside.

Everything is float32 with one rounding an operation, elementary functions included, in the order that the compiled
kernels follow: results are the same bits.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitsearch.ops.errors import OperatorError

Float = NDArray[np.float32]
Index = NDArray[np.int32]
Kind = Literal["rational-quadratic", "cubic"]
OutOfBounds = Literal["scalar", "event"]

BINS = range(2, 65)
BOUND_MAX = 1e6
PART = 256  # values of a row that are summed before the sums are
NEWTON_STEPS = 8
SMALLEST = np.float32(1e-3)  # bin size, slope
LARGEST_LOGIT = np.float32(1e6)  # of a slope
TINY = np.finfo(np.float32).tiny

_F = np.float32
_LOG2_E, _LN2_HIGH, _LN2_LOW, _ROUND = _F(1.44269504), _F(0.693145752), _F(1.42860677e-6), _F(12582912)
_EXP_FLOOR = _F(-87)
_SQRT_HALF_BITS = np.int32(0x3F3504F3)
# Highest power first; fitted to the remainder behind the terms that (9) to (11) write out.
_EXP = (1.3951719738543034e-3, 8.369598537683487e-3, 4.16661873459816e-2, 0.16666512191295624, 0.5)
_LOG = (0.29879167675971985, 0.39977285265922546, 0.6666677594184875)
_LOG1P = (0.28031274676322937, 0.2799786329269409, 0.4002177119255066, 0.6666641235351562)


def parameters(kind: Kind, bins: int) -> int:
    """Count the parameters of one value."""
    return 2 * bins + 2 if kind == "cubic" else 3 * bins - 1


def monotone_spline(
    X: Float,
    theta: Float,
    *,
    kind: Kind,
    bins: int,
    bound: float,
    inverse: bool = False,
    out_of_bounds: OutOfBounds = "scalar",
) -> tuple[Float, Float]:
    """Map values (..., S) by splines with parameters (..., S P): results (..., S), log-determinants (...).

    Raises:
        OperatorError: an input or an attribute has the wrong type, shape or value.
    """
    _check(kind in ("rational-quadratic", "cubic"), "kind", kind, "'rational-quadratic' or 'cubic'")
    _check(out_of_bounds in ("scalar", "event"), "out_of_bounds", out_of_bounds, "'scalar' or 'event'")
    _check(bins in BINS, "bins", bins, f"{BINS[0]} to {BINS[-1]}")
    _check(0 < bound <= BOUND_MAX, "bound", bound, "a number above 0 and at most 1e6")
    count = parameters(kind, bins)
    for name, array in (("X", X), ("theta", theta)):
        is_float = isinstance(array, np.ndarray) and array.dtype == np.float32
        _check(is_float, name, array, "a float32 array")
    _check(X.ndim > 0 and X.shape[-1] > 0, "X", X, "shape (..., S) with S at least 1")
    expected = (*X.shape[:-1], X.shape[-1] * count)
    _check(theta.shape == expected, "theta", theta, f"shape {expected}, {count} for each value of X")
    limit, domain = _F(bound), _F(2) * _F(bound)
    inside = np.abs(X) <= limit
    columns = np.moveaxis(theta.reshape(*X.shape, count), -1, 0)
    with np.errstate(all="ignore"):
        position = (np.where(inside, X, _F(0)) + limit) / domain
        unit, log_slope = _transform(position, columns, kind, bins, inverse)
        poison = np.zeros_like(X)
        for column in columns:
            poison += column - column
        Y, log_slope = (unit * domain - limit) + poison, log_slope + poison
    if out_of_bounds == "event":
        inside = np.broadcast_to(inside.all(-1, keepdims=True), X.shape)
    return np.where(inside, Y, X), _sum(np.where(inside, log_slope, _F(0)))


class Bin(NamedTuple):
    """The left edge and the size of the bin of every value."""

    edge: Float
    size: Float


def exp(x: Float) -> Float:
    """Compute e^x for x <= 0: Eq. (9)."""
    x = np.where(x > _EXP_FLOOR, x, _EXP_FLOOR)
    shifted = x * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = (_horner(_EXP, r) * (r * r) + r) + _F(1)
    result: Float = (p.view(np.int32) + (shifted.view(np.int32) << 23)).view(np.float32)
    return result


def log(x: Float) -> Float:
    """Compute ln x for normal x > 0: Eq. (10)."""
    bits = x.view(np.int32)
    exponent = (bits - _SQRT_HALF_BITS) >> 23
    mantissa = (bits - (exponent << 23)).view(np.float32)
    n: Float = exponent.astype(np.float32)
    s: Float = (mantissa - _F(1)) / (mantissa + _F(1))
    z = s * s
    result: Float = n * _LN2_HIGH + (s * _F(2) + ((s * z) * _horner(_LOG, z) + n * _LN2_LOW))
    return result


def log1p(t: Float) -> Float:
    """Compute ln(1 + t) for t in [0, 1]: Eq. (11)."""
    s: Float = np.divide(t, t + _F(2))
    z = s * s
    result: Float = np.add(s * _F(2), (s * z) * _horner(_LOG1P, z))
    return result


def softplus(x: Float) -> Float:
    """Compute ln(1 + e^x): Eq. (12)."""
    return np.maximum(x, _F(0)) + log1p(exp(-np.abs(x)))


def sigmoid(x: Float) -> Float:
    """Compute 1 / (1 + e^-x): Eq. (13)."""
    e = exp(-np.abs(x))
    result: Float = np.where(x < 0, e, _F(1)) / (e + _F(1))
    return result


def _transform(position: Float, columns: Float, kind: Kind, bins: int, inverse: bool) -> tuple[Float, Float]:
    widths, heights, rest = _sizes(columns[:bins]), _sizes(columns[bins : 2 * bins]), columns[2 * bins :]
    searched = heights if inverse else widths
    index = np.zeros(position.shape, np.int32)
    for edge in _edges(searched)[1:]:
        index += position >= edge
    x, y = _at(widths, index), _at(heights, index)
    if kind == "cubic":
        unit, log_slope = _cubic(rest, widths, heights, position, index, x, y, inverse)
    else:
        unit, log_slope = _rational_quadratic(rest, position, index, x, y, inverse)
    return unit, -log_slope if inverse else log_slope


def _rational_quadratic(
    logits: Float, position: Float, index: Index, x: Bin, y: Bin, inverse: bool
) -> tuple[Float, Float]:
    slopes = np.ones((len(logits) + 2, *position.shape), np.float32)
    slopes[1:-1] = softplus(np.minimum(logits, LARGEST_LOGIT)) + SMALLEST
    d_0, d_1 = _take(slopes, index), _take(slopes, index + 1)
    h, s = y.size, y.size / x.size
    curvature = (d_0 + d_1) - s * _F(2)
    xi: Float
    if inverse:
        t = position - y.edge
        a = t * curvature + h * (s - d_0)
        b = h * d_0 - t * curvature
        c = -(s * t)
        root = np.sqrt(np.maximum(b * b - (a * c) * _F(4), _F(0)))
        xi = np.divide(np.where(b >= 0, c * _F(2), root - b), np.where(b >= 0, -b - root, a * _F(2)))
    else:
        xi = (position - x.edge) / x.size
    xi = np.clip(xi, _F(0), _F(1))
    eta = _F(1) - xi
    mixed = xi * eta
    denominator = s + curvature * mixed
    numerator = (d_1 * (xi * xi) + (s * _F(2)) * mixed) + d_0 * (eta * eta)
    log_slope = log(s / denominator) * _F(2) + log(numerator)
    if inverse:
        return x.edge + x.size * xi, log_slope
    return y.edge + h * (s * (xi * xi) + d_0 * mixed) / denominator, log_slope


def _cubic(
    logits: Float, widths: Float, heights: Float, position: Float, index: Index, x: Bin, y: Bin, inverse: bool
) -> tuple[Float, Float]:
    slopes = heights / widths
    s = _take(slopes, index)
    first = sigmoid(logits[0]) * (slopes[0] * _F(3) - _F(2) * SMALLEST) + SMALLEST
    last = sigmoid(logits[1]) * (slopes[-1] * _F(3) - _F(2) * SMALLEST) + SMALLEST
    inner = _steffen(widths[:-1], slopes[:-1], widths[1:], slopes[1:])
    knots = np.concatenate([first[None], inner, last[None]])
    c, e = _take(knots, index) / s, _take(knots, index + 1) / s
    a = (c + e) - _F(2)
    b = (_F(3) - c * _F(2)) - e
    q = _solve_cubic((position - y.edge) / y.size, a, b, c) if inverse else (position - x.edge) / x.size
    q = np.clip(q, _F(0), _F(1))
    log_slope = log(s) + log(np.maximum((a * _F(3) * q + b * _F(2)) * q + c, TINY))
    if inverse:
        return x.edge + x.size * q, log_slope
    return y.edge + y.size * (((a * q + b) * q + c) * q), log_slope


def _steffen(w_0: Float, s_0: Float, w_1: Float, s_1: Float) -> Float:
    mean = (w_1 * s_0 + w_0 * s_1) * _F(0.5) / (w_0 + w_1)
    return np.minimum(np.minimum(s_0, s_1), mean) * _F(2)


def _solve_cubic(target: Float, a: Float, b: Float, c: Float) -> Float:
    """Take Newton steps that bisect when they leave the bracket: Eq. (23)."""
    low, high, q = np.zeros_like(target), np.ones_like(target), np.clip(target, _F(0), _F(1))
    for _ in range(NEWTON_STEPS):
        residual = ((a * q + b) * q + c) * q - target
        slope = np.maximum((a * _F(3) * q + b * _F(2)) * q + c, TINY)
        low, high = np.where(residual > 0, low, q), np.where(residual > 0, q, high)
        step = q - residual / slope
        q = np.where((step >= low) & (step <= high), step, (low + high) * _F(0.5))
    return q


def _sizes(logits: Float) -> Float:
    """Turn logits (bins, ...) into bin sizes that sum to one: Eq. (15)."""
    powers = exp(logits - logits.max(0))
    total = np.zeros_like(powers[0])
    for power in powers:
        total += power
    share: Float = (_F(1) - SMALLEST * _F(len(logits))) / total
    return powers * share + SMALLEST


def _edges(sizes: Float) -> Float:
    edges = np.zeros_like(sizes)
    np.cumsum(sizes[:-1], axis=0, out=edges[1:])
    return edges


def _at(sizes: Float, index: Index) -> Bin:
    return Bin(_take(_edges(sizes), index), _take(sizes, index))


def _take(values: Float, index: Index) -> Float:
    taken: Float = np.take_along_axis(values, index[None], 0)[0]
    return taken


def _horner(coefficients: tuple[float, ...], x: Float) -> Float:
    result = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x + _F(coefficient)
    return result


def _sum(values: Float) -> Float:
    """Sum the last axis in double precision, part by part: Eq. (27)."""
    total = np.zeros(values.shape[:-1])
    for begin in range(0, values.shape[-1], PART):
        total += np.cumsum(values[..., begin : begin + PART], -1, dtype=np.float64)[..., -1]
    return total.astype(np.float32)


def _check(holds: bool, name: str, found: object, expected: str) -> None:
    if holds:
        return
    shown = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else repr(found)
    raise OperatorError(f"{name}: found {shown}, expected {expected}")
