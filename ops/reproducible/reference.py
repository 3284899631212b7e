"""The numpy truth of the reproducible operators; equation numbers are those of the README beside.

Every operation rounds once, to float32 or where it says so to float64, in the order that the compiled kernels follow:
results are the same bits.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from math import factorial, pi

import numpy as np
from numpy.typing import NDArray

from bitsearch.ops.errors import OperatorError
from bitsearch.ops.monotone_spline.reference import _EXP as EXP
from bitsearch.ops.monotone_spline.reference import _LN2_HIGH as LN2_HIGH
from bitsearch.ops.monotone_spline.reference import _LN2_LOW as LN2_LOW
from bitsearch.ops.monotone_spline.reference import _LOG2_E as LOG2_E
from bitsearch.ops.monotone_spline.reference import _ROUND as ROUND

Float = NDArray[np.float32]
Double = NDArray[np.float64]

PARTS = 16  # partial sums of Eq. (38)
"""Highest power first, fitted to what is left of each function behind the terms that its equation writes out."""
TANH = (
    -0.005704986862838268,
    0.02063908614218235,
    -0.05373971536755562,
    0.13331441581249237,
    -0.3333328068256378,
)
ERF = (
    8.2674618170131e-05,
    -0.0008118075202219188,
    0.005198829807341099,
    -0.02685849741101265,
    0.1128367930650711,
    -0.37612631916999817,
    0.12837916612625122,
)
ERF_TAIL = (
    1.2150419024692383e-05,
    -0.0003319874231237918,
    0.0036797281354665756,
    -0.023840725421905518,
    0.10632801055908203,
    0.6350963115692139,
    1.1286619901657104,
)
_F = np.float32
_D = np.float64
_BIG = _D(1.5 * 2**52)  # its sums are integers
LOG_SERIES = [2 / (2 * k + 1) for k in range(7, 0, -1)]
EXP_SERIES = [1 / factorial(k) for k in range(11, -1, -1)]
SIN_SERIES = [(-1) ** k / factorial(2 * k + 1) for k in range(6, 0, -1)]
COS_SERIES = [(-1) ** k / factorial(2 * k) for k in range(7, 0, -1)]
ATAN_SERIES = [(-1) ** k / (2 * k + 1) for k in range(12, 0, -1)]


def fma(a: Float | np.float32, b: Float | np.float32, c: Float | np.float32) -> Float:
    """Compute a b + c with one rounding, by a sum in double precision that is rounded to odd."""
    product, addend = np.multiply(a, b, dtype=_D), np.asarray(c, _D)
    total = np.asarray(product + addend)
    back = total - product
    error = (product - (total - back)) + (addend - back)
    bits = total.view(np.int64)
    away = np.where((error > 0) == (total > 0), 1, -1)
    moved = np.isfinite(total) & np.isfinite(error) & (error != 0) & (bits & 1 == 0)
    odd: Double = (bits + np.where(moved, away, 0)).view(_D)
    return odd.astype(_F)


def matmul(a: Float, b: Float, c: Float | None = None) -> Float:
    """Multiply as `numpy.matmul` does, and add `c` to the last axis: Eq. (37)."""
    with np.errstate(all="ignore"):
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        y: Float = np.zeros((*batch, a.shape[-2], b.shape[-1]), _F)
        for k in range(a.shape[-1]):
            y = fma(a[..., :, k : k + 1], b[..., k : k + 1, :], y)
        return y if c is None else y + c


def tree_sum(x: Float, squares: bool = False) -> Float:
    """Sum over the last axis, or its squares: Eq. (38)."""
    parts: Float = np.zeros((*x.shape[:-1], PARTS), _F)
    for k in range(x.shape[-1]):
        j = k % PARTS
        parts[..., j] = fma(x[..., k], x[..., k], parts[..., j]) if squares else parts[..., j] + x[..., k]
    while parts.shape[-1] > 1:
        half = parts.shape[-1] // 2
        parts = parts[..., :half] + parts[..., half:]
    return parts[..., 0]


def reduce_sum(x: Float, axes: tuple[int, ...], keepdims: bool = True) -> Float:
    """Sum over neighbouring axes: Eq. (38) over their elements in memory's order.

    Raises:
        OperatorError: the axes are no neighbours.
    """
    if not axes:
        axes = tuple(range(x.ndim))
    first, *rest = sorted(axis % x.ndim for axis in axes)
    if any(after - before != 1 for before, after in pairwise([first, *rest])):
        raise OperatorError(f"axes: found {axes}, expected neighbouring ones")
    outer, inner = x.shape[:first], x.shape[first + 1 + len(rest) :]
    with np.errstate(all="ignore"):
        y = tree_sum(np.moveaxis(x.reshape(*outer, -1, *inner), len(outer), -1))
    return y.reshape(*outer, *([1] * (1 + len(rest)) if keepdims else []), *inner)


def softmax(x: Float) -> Float:
    """Normalise exponentials over the last axis: Eq. (39)."""
    with np.errstate(all="ignore"):
        largest = x[..., :1]
        for k in range(x.shape[-1]):
            largest = np.where(x[..., k : k + 1] > largest, x[..., k : k + 1], largest)
        powers = exp(x - largest)
        return np.asarray(powers / tree_sum(powers)[..., None])


def layer_normalization(x: Float, scale: Float, bias: Float, epsilon: float = 1e-5) -> Float:
    """Normalise over the last axis: Eq. (40)."""
    size = _F(x.shape[-1])
    with np.errstate(all="ignore"):
        centred = x - (tree_sum(x) / size)[..., None]
        inverse = _F(1) / np.sqrt(tree_sum(centred, squares=True) / size + _F(epsilon))
        return np.asarray((centred * inverse[..., None]) * scale + bias)


def exp(x: Float) -> Float:
    """Compute e^x: Eq. (41)."""
    x = np.where(x < _F(-104), _F(-104), x)
    x = np.where(x > _F(89), _F(89), x)
    shifted = np.asarray(x * LOG2_E + ROUND)
    n = shifted - ROUND
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x))
    p = fma(_horner(EXP, r), r * r, r) + _F(1)
    power = shifted.view(np.int32) - ROUND.view(np.int32)
    half = power >> 1
    return np.asarray((p * _two_to(half)) * _two_to(power - half))


def sigmoid(x: Float) -> Float:
    """Compute 1 / (1 + e^-x): Eq. (42)."""
    e = exp(np.where(x < 0, x, -x))
    return np.asarray(np.where(x < 0, e, _F(1)) / (e + _F(1)))


def tanh(x: Float) -> Float:
    """Compute tanh x: Eq. (43)."""
    a, z = np.abs(x), x * x
    e = exp(a * _F(-2))
    return np.where(a < _F(0.625), fma(x * z, _horner(TANH, z), x), np.copysign((_F(1) - e) / (e + _F(1)), x))


def erf(x: Float) -> Float:
    """Compute the error function: Eq. (44)."""
    a, z = np.abs(x), x * x
    b = np.where(a > _F(4), _F(4), a)
    tail = np.copysign(_F(1) - exp(-(b * _horner(ERF_TAIL, b))), x)
    return np.where(a < _F(0.9375), fma(x, _horner(ERF, z), x), tail)


def gelu(x: Float) -> Float:
    """Compute x Φ(x): Eq. (45)."""
    return np.asarray((x * _F(0.5)) * (erf(x * _F(np.sqrt(0.5))) + _F(1)))


def gelu_tanh(x: Float) -> Float:
    """Compute the approximation of x Φ(x) by tanh: Eq. (46)."""
    twice = 2 * np.sqrt(2 / np.pi)
    bent = fma(np.asarray(x * x), _F(twice * 0.044715), _F(twice))
    return np.asarray(x * sigmoid(np.asarray(x * bent)))


def _horner(coefficients: tuple[float, ...], x: Float) -> Float:
    p = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        p = fma(p, x, _F(coefficient))
    return p


def _two_to(power: NDArray[np.int32]) -> Float:
    return np.asarray((power + np.int32(127)) << 23).view(_F)


def log64(x: Double) -> Double:
    """Compute ln x in double precision: Eq. (47)."""
    bits = x.view(np.int64)
    exponent = (bits - np.int64(0x3FE6A09E667F3BCD)) >> 52
    mantissa = (bits - (exponent << 52)).view(_D)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    z = s * s
    y = exponent.astype(_D) * 0.6931471805599453 + (s * 2.0 + (s * z) * _series(LOG_SERIES, z))
    y = np.where(x == np.inf, x, y)
    y = np.where(x < 0, np.nan, np.where(x == 0, -np.inf, y))
    return np.where(np.isnan(x), x, y)


def exp64(x: Double) -> Double:
    """Compute e^x in double precision: Eq. (48)."""
    x = np.where(x < -700, -700.0, x)
    x = np.where(x > 700, 700.0, x)
    shifted = np.asarray(x * 1.4426950408889634 + _BIG)
    n = shifted - _BIG
    r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10
    power = shifted.view(np.int64) - _BIG.view(np.int64)
    return np.asarray(_series(EXP_SERIES, r) * ((power + 1023) << 52).view(_D))


def _turned(x: Double, quarters: int) -> Double:
    """Compute sin(x + quarters π / 2): Eq. (49)."""
    shifted = np.asarray(x * (2 / pi) + _BIG)
    n = shifted - _BIG
    r = (x - n * 1.5707963267341256) - n * 6.077100506506192e-11
    r = np.where(r > 1, 1.0, np.where(r < -1, -1.0, r))
    z = r * r
    sine = r + (r * z) * _series(SIN_SERIES, z)
    cosine = 1.0 + z * _series(COS_SERIES, z)
    quadrant = shifted.view(np.int64) + quarters
    y = np.where(quadrant & 1 == 1, cosine, sine)
    return np.where(quadrant & 2 == 2, -y, y)


def _sinh64(x: Double) -> Double:
    a = np.abs(x)
    z, e = a * a, exp64(a)
    small = a + (a * z) * (z * (1 / 120) + 1 / 6)
    return np.copysign(np.where(a < 0.01, small, (e - 1.0 / e) * 0.5), x)


def _cosh64(x: Double) -> Double:
    e = exp64(np.abs(x))
    return np.asarray((e + 1.0 / e) * 0.5)


def _asinh64(x: Double) -> Double:
    a = np.abs(x)
    z = a * a
    small = a + (a * z) * (z * 0.075 - 1 / 6)
    return np.copysign(np.where(a < 0.01, small, log64(a + np.sqrt(z + 1.0))), x)


def _atan64(x: Double) -> Double:
    a = np.abs(x)
    t = np.where(a > 1, 1.0 / a, a)
    folded = t > 0.41421356237309503
    u = np.where(folded, (t - 1.0) / (t + 1.0), t)
    z = u * u
    y = u + (u * z) * _series(ATAN_SERIES, z)
    y = np.where(folded, y + pi / 4, y)
    return np.asarray(np.copysign(np.where(a > 1, pi / 2 - y, y), x))


def _series(coefficients: list[float], x: Double) -> Double:
    p = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        p = p * x + coefficient
    return p


def _rounded(function: Callable[[Double], Double]) -> Callable[[Float], Float]:
    return lambda x: function(x.astype(_D)).astype(_F)


ELEMENTARY: Mapping[str, Callable[[Float], Float]] = {
    "Asinh": _rounded(_asinh64),
    "Atan": _rounded(_atan64),
    "Cos": _rounded(lambda x: _turned(x, 1)),
    "Cosh": _rounded(_cosh64),
    "Erf": erf,
    "Exp": exp,
    "Gelu": gelu,
    "Log": _rounded(log64),
    "Sigmoid": sigmoid,
    "Sin": _rounded(lambda x: _turned(x, 0)),
    "Sinh": _rounded(_sinh64),
    "Sqrt": np.sqrt,
    "Tanh": tanh,
}
"""Operators of one input, by name; Gelu's approximation by tanh is `gelu_tanh`."""


def elementary(name: str, x: Float, approximate: str = "none") -> Float:
    """Apply one of `ELEMENTARY`."""
    with np.errstate(all="ignore"):
        function = gelu_tanh if approximate == "tanh" else ELEMENTARY[name]
        return function(np.asarray(x, _F))
