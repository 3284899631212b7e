"""Angles of decay planes: how far residuals spread, how far two sets of them are apart, a closed-form estimate."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bitsearch.core.measurement import Histogram, Quantity
from bitsearch.models.metrics.separation import separation

Angles = NDArray[np.floating]
QUANTILES = {"q50": 0.5, "q68": 0.68, "q95": 0.95}
EDGES = np.linspace(-2 * math.pi, 2 * math.pi, 101)
FOLDED_EDGES = np.linspace(-math.pi / 2, math.pi / 2, 61)


def principal_axis(pt: Angles, theta: Angles, phi: Angles) -> NDArray[np.float64]:
    """Estimate the azimuth of the decay plane from `(jets, particles)` in closed form, in (-π/2, π/2].

    It is the axis of the tensor Σ pT Θ n nᵀ with the unit vector n of a particle's azimuth.
    """
    weight = np.asarray(pt, np.float64) * theta
    return np.asarray(0.5 * np.arctan2((weight * np.sin(2 * phi)).sum(1), (weight * np.cos(2 * phi)).sum(1)))


def fold(angle: Angles) -> NDArray[np.float64]:
    """Reduce angles in radians modulo π to (-π/2, π/2]: exchanging the two quarks adds π."""
    return math.pi / 2 - np.mod(math.pi / 2 - np.asarray(angle, np.float64), math.pi)


def spread(residuals: Angles) -> Mapping[str, Quantity]:
    """Give the mean sin² with its standard error, and quantiles of |residual modulo π| in radians."""
    squared = np.sin(np.asarray(residuals, np.float64)) ** 2
    error = float(squared.std(ddof=1)) / math.sqrt(len(squared))
    values = np.quantile(np.abs(fold(residuals)), list(QUANTILES.values()))
    quantiles = {
        name: Quantity(float(value), None, len(squared))
        for name, value in zip(QUANTILES, values, strict=True)
    }
    return {"sin2": Quantity(float(squared.mean()), error, len(squared)), **quantiles}


def distances(reference: Angles, residuals: Angles) -> Mapping[str, Quantity]:
    """Give how far two sets of residuals, not reduced modulo π, are apart.

    `wasserstein` is ∫|F - G| dr in radians, `separation` S = ½Σ(p-q)²/(p+q), and `separation_paper` 2S, which
    reaches 2 as the values of BitHEP Table 2 do.
    """
    power = float(separation(_counts(reference, EDGES), _counts(residuals, EDGES)))
    values = {
        "wasserstein": float(stats.wasserstein_distance(reference, residuals)),
        "separation": power,
        "separation_paper": 2 * power,
    }
    return {name: Quantity(value, None, len(residuals)) for name, value in values.items()}


def histograms(reference: Angles, residuals: Angles) -> tuple[Histogram, ...]:
    """Count residuals as they are and modulo π, those of a reference beside them."""
    return (
        _histogram("residual", "Truth - prediction [rad]", EDGES, reference, residuals),
        _histogram(
            "residual-modulo-pi",
            "Truth - prediction modulo π [rad]",
            FOLDED_EDGES,
            fold(reference),
            fold(residuals),
        ),
    )


def _histogram(name: str, label: str, edges: Angles, reference: Angles, residuals: Angles) -> Histogram:
    expected, found = _counts(reference, edges), _counts(residuals, edges)
    power = Quantity(float(separation(expected, found)), None, len(residuals))
    return Histogram(
        name, label, tuple(edges.tolist()), tuple(expected.tolist()), tuple(found.tolist()), power
    )


def _counts(values: Angles, edges: Angles) -> NDArray[np.float64]:
    """Count all values; those outside go into the outermost bins."""
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].astype(np.float64)
