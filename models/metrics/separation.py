"""How far two histograms are apart."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def separation(reference: Array, generated: Array) -> Array:
    """Compute the separation power of counts `(..., bins)`: 0 for equal, 1 for disjoint distributions.

    S = 1/2 sum (h - g)^2 / (h + g) with h, g normalised over the shown bins; an empty histogram is disjoint
    from any other.
    """
    h, g = (
        counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1e-300) for counts in (reference, generated)
    )
    distance = ((h - g) ** 2 / (h + g + 1e-16)).sum(axis=-1) / 2
    empty = (h.sum(axis=-1) == 0) ^ (g.sum(axis=-1) == 0)
    return np.where(empty, 1.0, distance)


def noise(reference: Array, generated: Array) -> float:
    """Give the separation power expected from statistics alone, were both drawn from one distribution."""
    filled = np.count_nonzero(reference + generated)
    counts = reference.sum(), generated.sum()
    return (filled - 1) / 4 * sum(1 / n for n in counts) if all(counts) else 0.0
