"""Round weights to ternary or binary codes times a scale: the one definition, in numpy.

Sums are taken in double precision and scales rounded to float32 once, so that whoever sums in another order finds the
same scales.
"""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from bitsearch.core.precision import Precision

SMALLEST_SCALE = 1e-8
INT8_MAX = 127
BLOCK = 2**20  # weights rounded at a time: what sorting needs stays small beside the weights

Float = NDArray[np.float32]
Codes = NDArray[np.int8]


class Rounding(StrEnum):
    """How weights become codes.

    `paper` is BitHEP Eq. (1): one scale for all outputs, the mean magnitude. `mean` is the same for every output by
    itself, `optimal` leaves the least squared error an output can have.
    """

    OPTIMAL = "optimal"
    MEAN = "mean"
    PAPER = "paper"


def round_rows(
    weight: Float, rounding: Rounding | str = Rounding.OPTIMAL, precision: Precision = Precision.TERNARY
) -> tuple[Codes, Float]:
    """Round `(out_features, in_features)` to codes in {-1, 0, 1} and a scale `(out_features,)`.

    With `int8` codes are in [-127, 127], the largest magnitude of an output at 127, whatever the rounding. Weights
    that are ternary (or binary) times a scale already come back exactly from `optimal`.
    """
    if precision is Precision.INT8:
        scale = np.maximum(np.abs(weight).max(axis=1), np.float32(SMALLEST_SCALE)) / np.float32(INT8_MAX)
        return np.rint(weight / scale[:, None]).astype(np.int8), scale
    rounding = Rounding(rounding)
    codes, scale = np.empty(weight.shape, np.int8), np.empty(len(weight), np.float32)
    size = max(1, BLOCK // max(weight.shape[1], 1))
    blocks = [slice(begin, begin + size) for begin in range(0, len(weight), size)]
    if rounding is Rounding.OPTIMAL:
        for block in blocks:
            codes[block] = _optimal(weight[block], precision)
            scale[block] = fit_scale(weight[block], codes[block])
        return codes, scale
    rows = weight.reshape(1, -1) if rounding is Rounding.PAPER else weight
    scale[:] = np.maximum(_means(np.abs(rows)), np.float32(SMALLEST_SCALE))
    center = np.broadcast_to(_means(rows), scale.shape)
    for block in blocks:
        if precision is Precision.BINARY:
            codes[block] = np.sign(weight[block] - center[block, None])
        else:
            codes[block] = np.clip(np.rint(weight[block] / scale[block, None]), -1, 1)
    return codes, scale


def fit_scale(weight: Float, codes: Codes) -> Float:
    """Give the scales `(out_features,)` of least squared error for given codes: Σ w c / Σ c², 0 where all are 0."""
    products = np.where(codes, weight * codes, 0).sum(axis=1, dtype=np.float64)
    return np.asarray(products / np.maximum(np.count_nonzero(codes, axis=1), 1), np.float32)


def is_lossless(weight: Float, codes: Codes, scale: Float) -> bool:
    """Tell whether codes times scale are the weights exactly."""
    size = max(1, BLOCK // max(weight.shape[1], 1))
    blocks = (slice(begin, begin + size) for begin in range(0, len(weight), size))
    return all(np.array_equal(codes[block] * scale[block, None], weight[block]) for block in blocks)


def _optimal(weight: Float, precision: Precision) -> Codes:
    """Keep the k largest magnitudes of each row, with k = argmax (Σ₁ᵏ|w|)² / k; binary codes keep all.

    With scale a and k codes that are not 0 the squared error is Σw² - 2aΣ₁ᵏ|w| + ka², least at a = Σ₁ᵏ|w| / k.
    """
    if precision is Precision.BINARY:
        return np.where(weight < 0, -1, 1).astype(np.int8)
    magnitude = np.abs(weight)
    falling = -np.sort(-magnitude, axis=1)
    gain = np.cumsum(falling, axis=1, dtype=np.float64) ** 2 * reciprocals(weight.shape[1])
    smallest = np.take_along_axis(falling, np.argmax(gain, axis=1)[:, None], axis=1)
    return np.where((magnitude >= smallest) & (magnitude > 0), np.sign(weight), 0).astype(np.int8)


def reciprocals(count: int) -> NDArray[np.float64]:
    """Give 1/k for k = 1 to `count`, falling a little less, so that of equal gains that of the largest k wins."""
    k = np.arange(1, count + 1, dtype=np.float64)
    return np.asarray((1 + 1e-15 * k) / k)


def _means(rows: Float) -> Float:
    return np.asarray(rows.mean(axis=1, dtype=np.float64), np.float32)
