"""How well scores tell quark from gluon jets: the metrics of BitHEP Table 1 and the curves of its figures."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import auc as area_under
from sklearn.metrics import roc_curve

from bitsearch.core import measurement
from bitsearch.core.measurement import Curve, Evaluation, Histogram, Quantity
from bitsearch.models.metrics.separation import separation

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
CLIP = 1e-7
BINS, FEWEST = 20, 20
EFFICIENCIES = np.linspace(0.01, 1.0, 100)


def roc(scores: Floats, quark: Bools) -> tuple[Floats, Floats]:
    """Give gluon and quark efficiencies of all cuts, from (0, 0) to (1, 1); equal scores are one cut.

    The efficiency of a class without jets is 0.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        gluons, quarks, _ = roc_curve(quark, scores, drop_intermediate=False)
    return np.nan_to_num(gluons), np.nan_to_num(quarks)


def auc(scores: Floats, quark: Bools) -> float:
    """Give the area under the ROC curve."""
    return float(area_under(*roc(scores, quark)))


def gluon_efficiency(
    scores: Floats, quark: Bools, quark_efficiency: Floats | float
) -> Floats | np.floating[Any]:
    """Give the gluon efficiency at quark efficiencies: linear between cuts, of equal ones the tightest cut."""
    gluons, quarks = roc(scores, quark)
    first = np.append(True, np.diff(quarks) > 0)
    found: Floats | np.floating[Any] = np.interp(quark_efficiency, quarks[first], gluons[first])
    return found


def rejection(scores: Floats, quark: Bools, efficiency: float) -> float:
    """Give 1 / gluon efficiency at a quark efficiency.

    Where less than one gluon jet is left the number of gluon jets stands in, the most that they can show.
    """
    most = max(1.0, float(np.count_nonzero(~quark)))
    return 1 / max(float(gluon_efficiency(scores, quark, efficiency)), 1 / most)


def cross_entropy(scores: Floats, quark: Bools) -> Floats:
    """Give -ln of the probability of the true class of every jet, probabilities kept off 0 and 1 by 1e-7."""
    p = np.clip(np.where(quark, scores, 1 - scores), CLIP, 1)
    return np.asarray(-np.log(p), np.float64)


def metrics(scores: Floats, quark: Bools) -> dict[str, Quantity]:
    """Compute every metric of one training with its statistical error over jets.

    The AUC's is that of Hanley and McNeil (1982), a rejection's the binomial one of the gluon efficiency. Scores
    that are no probabilities have no meaningful accuracy and cross entropy.
    """
    n = len(quark)
    area = auc(scores, quark)
    loss = cross_entropy(scores, quark)
    accuracy = float(((scores > 0.5) == quark).mean())
    found = {
        "cross_entropy": Quantity(float(loss.mean()), float(loss.std()) / math.sqrt(n), n),
        "accuracy": Quantity(accuracy, math.sqrt(accuracy * (1 - accuracy) / n), n),
        "auc": Quantity(area, _auc_error(area, int(quark.sum()), int((~quark).sum())), n),
    }
    for percent in (50, 30):
        value = rejection(scores, quark, percent / 100)
        error = value * math.sqrt(max(0.0, value - 1) / max(1, int((~quark).sum())))
        found[f"rejection_{percent}"] = Quantity(value, error, n)
    return found


def over_trainings(scores: Sequence[Floats], quark: Bools) -> dict[str, Quantity]:
    """Average the metrics over trainings; the error is their standard deviation, or a single training's own."""
    return measurement.over_trainings([metrics(item, quark) for item in scores])


def evaluation(
    scores: Sequence[Floats], quark: Bools, digest: str, classes: tuple[str, str] = ("quark", "gluon")
) -> Evaluation:
    """Draw ROC, rejection, calibration and the scores of the first of several trainings; bands are over all.

    `classes` are called so in titles, the one that scores of 1 stand for first. There is no calibration curve where no
    bin of scores has enough events in all trainings.
    """
    curves = (
        _roc(scores, quark, classes),
        _rejections(scores, quark, classes),
        _calibration(scores, quark, classes[0]),
    )
    return Evaluation(
        digest,
        len(quark),
        histograms=(_scores(scores[0], quark, classes),),
        curves=tuple(curve for curve in curves if curve.positions),
    )


def calibration(scores: Floats, quark: Bools) -> tuple[Floats, Floats]:
    """Give mean score and share of quarks in 20 equal bins of the score, NaN in bins of less than 20 jets."""
    index = np.minimum((scores * BINS).astype(int), BINS - 1)
    counts = np.bincount(index, minlength=BINS).astype(float)
    counts[counts < FEWEST] = np.nan
    return (
        np.bincount(index, scores, BINS) / counts,
        np.bincount(index, quark.astype(float), BINS) / counts,
    )


def _roc(scores: Sequence[Floats], quark: Bools, classes: tuple[str, str]) -> Curve:
    curves = np.stack([gluon_efficiency(item, quark, EFFICIENCIES) for item in scores])
    mean, low, high = _band(curves)
    return Curve(
        "roc",
        f"{classes[1]} efficiency",
        f"{classes[0]} efficiency",
        tuple(EFFICIENCIES.tolist()),
        tuple(mean.tolist()),
        *_bounds(low, high, scores),
    )


def _rejections(scores: Sequence[Floats], quark: Bools, classes: tuple[str, str]) -> Curve:
    curves = np.stack([[rejection(item, quark, at) for at in EFFICIENCIES] for item in scores])
    mean, low, high = _band(curves)
    return Curve(
        "rejection",
        f"{classes[1]} rejection, 1 / efficiency",
        f"{classes[0]} efficiency",
        tuple(EFFICIENCIES.tolist()),
        tuple(mean.tolist()),
        *_bounds(np.maximum(low, 1.0), high, scores),
        logarithmic=True,
    )


def _calibration(scores: Sequence[Floats], quark: Bools, signal: str) -> Curve:
    found = [calibration(item, quark) for item in scores]
    filled = np.isfinite(np.stack([share for _, share in found])).all(0)
    positions = np.stack([mean for mean, _ in found])[:, filled].mean(0)
    mean, low, high = _band(np.stack([share for _, share in found])[:, filled])
    return Curve(
        "calibration",
        f"share of {signal}",
        f"mean {signal} probability in the bin",
        tuple(positions.tolist()),
        tuple(mean.tolist()),
        *_bounds(low, high, scores),
        diagonal=True,
    )


def _scores(scores: Floats, quark: Bools, classes: tuple[str, str]) -> Histogram:
    edges = np.linspace(0, 1, 2 * BINS + 1)
    gluons, quarks = (np.histogram(scores[kind], edges)[0].astype(float) for kind in (~quark, quark))
    return Histogram(
        "score",
        f"{classes[0]} probability of {classes[0]} (reference: {classes[1]})",
        tuple(edges.tolist()),
        tuple(gluons.tolist()),
        tuple(quarks.tolist()),
        Quantity(float(separation(gluons, quarks)), None, len(scores)),
    )


def _band(curves: Floats) -> tuple[Floats, Floats, Floats]:
    """Give the mean over trainings and one standard deviation to either side."""
    mean = curves.mean(0)
    spread = curves.std(0, ddof=1) if len(curves) > 1 else np.zeros_like(mean)
    return mean, mean - spread, mean + spread


def _bounds(
    low: Floats, high: Floats, scores: Sequence[Floats]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return (tuple(low.tolist()), tuple(high.tolist())) if len(scores) > 1 else ((), ())


def _auc_error(area: float, signal: int, background: int) -> float:
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (signal - 1) * (q1 - area**2) + (background - 1) * (q2 - area**2)) / max(
        1, signal * background
    )
    return math.sqrt(max(0.0, variance))
