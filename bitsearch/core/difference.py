"""Whether one configuration is better than another: paired trainings, Student's t, and what they could have shown."""

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from bitsearch.core.measurement import Measurement, Metric, Quantity

POWER = 0.8
"""A loss counts as visible where this share of repeated experiments would show it."""
LEVEL = 0.05
"""The share of experiments that show a loss where there is none."""
NORMAL = statistics.NormalDist()
SMALLEST_TAIL = 1e-15
"""Double precision resolves no smaller tail."""


@dataclass(frozen=True)
class Difference:
    """How much better one configuration is than another, positive is better, with the standard error of that.

    `pairs` counts the trainings with common seeds that `error` is taken over. Where there are none, it is 0 and `error`
    the two spreads in quadrature; where a spread is missing as well, `error` is None.
    """

    gain: float
    error: float | None
    pairs: int = 0

    @property
    def sigmas(self) -> float | None:
        """The significance in standard deviations of a normal distribution; few pairs weigh less (Student's t)."""
        if not self.error:
            return None
        ratio = self.gain / self.error
        return math.copysign(_normal_equivalent(abs(ratio), self.pairs - 1), ratio) if self.pairs else ratio

    @property
    def detectable(self) -> float | None:
        """The smallest loss that `POWER` of such experiments would show at `LEVEL`; None where no error is known."""
        if self.error is None:
            return None
        dof = self.pairs - 1 if self.pairs else math.inf
        return (_quantile(1 - LEVEL, dof) + _quantile(POWER, dof)) * self.error

    def repetitions_needed(self, sigmas: float) -> int | None:
        """Estimate how many times as much data would show this gain at `sigmas`; None where no error is known."""
        if not self.error or not self.gain:
            return None
        return math.ceil(((sigmas + NORMAL.inv_cdf(POWER)) * self.error / self.gain) ** 2)

    def pairs_needed(self, sigmas: float) -> int | None:
        """Estimate how many paired trainings would show this gain at `sigmas`; None where none are paired."""
        if not self.pairs or not self.error or not self.gain:
            return None
        spread = self.error * math.sqrt(self.pairs)
        # Two more than the normal distribution asks for: Student's t at so few.
        return math.ceil(((sigmas + NORMAL.inv_cdf(POWER)) * spread / self.gain) ** 2) + 2


def difference(one: Measurement, other: Measurement, objective: Metric) -> Difference:
    """Compare two configurations of a run: over trainings with common seeds where both have two or more."""
    first, second = (item.metrics[objective.name] for item in (one, other))
    return between(first, second, objective, paired=one.digest != other.digest)


def between(one: Quantity, other: Quantity, metric: Metric, paired: bool) -> Difference:
    """Compare two values of a metric; `paired` says that their trainings had common seeds, in the same order."""
    sign = -1.0 if metric.direction == "minimize" else 1.0
    pairs = [sign * (mine - theirs) for mine, theirs in zip(one.values, other.values, strict=False)]
    if paired and len(pairs) >= 2:
        return Difference(statistics.mean(pairs), statistics.stdev(pairs) / math.sqrt(len(pairs)), len(pairs))
    gain = sign * (one.value - other.value)
    if one.std is None or other.std is None:
        return Difference(gain, None)
    return Difference(gain, math.hypot(one.std, other.std))


@dataclass(frozen=True)
class Agreement:
    """Spearman's rank correlation of two measures of the same `count` things, with its 95 % interval."""

    rho: float
    low: float
    high: float
    count: int


def agreement(one: Sequence[float], other: Sequence[float], held: Sequence[float] = ()) -> Agreement | None:
    """Compare the orders of two measures, with a third `held` fixed where one is given.

    The interval is Fisher's with the variance of Bonett and Wright (2000), Psychometrika 65, 23; that of a perfect
    order is as of one with two neighbours exchanged. None where fewer than five are compared, or one does not vary.
    """
    count = len(one)
    measures = [_ranks(values) for values in (one, other, held) if len(values)]
    if count < 5 or any(len(set(ranks)) < 2 for ranks in measures):
        return None
    rho = statistics.correlation(measures[0], measures[1])
    if len(measures) == 3:
        first, second = (statistics.correlation(ranks, measures[2]) for ranks in measures[:2])
        rest = (1 - first**2) * (1 - second**2)
        if rest < SMALLEST_TAIL:
            return None
        rho = max(-1.0, min(1.0, (rho - first * second) / math.sqrt(rest)))
    most = 1 - 12 / (count**3 - count)
    center = math.atanh(max(-most, min(most, rho)))
    width = NORMAL.inv_cdf(0.975) * math.sqrt((1 + rho**2 / 2) / (count - 1 - len(measures)))
    return Agreement(rho, math.tanh(center - width), math.tanh(center + width), count)


def _ranks(values: Sequence[float]) -> list[float]:
    """Give every value's place in the order; equal ones share the mean of theirs."""
    ordered = sorted(values)
    return [(bisect_left(ordered, value) + bisect_right(ordered, value) - 1) / 2 for value in values]


def _normal_equivalent(ratio: float, dof: int) -> float:
    """Turn Student's t into the deviation of a normal distribution with the same tail."""
    return -NORMAL.inv_cdf(max(_tail(ratio, dof), SMALLEST_TAIL))


def _tail(ratio: float, dof: int) -> float:
    """Give the probability beyond `ratio` >= 0 of Student's t (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(ratio / math.sqrt(dof))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = dof % 2
    term = cosine if odd else 1.0
    terms = 0.0
    for k in range(2 + odd, dof + 1, 2):
        terms += term
        term *= cosine**2 * (k - 1) / k
    inside = 2 / math.pi * (angle + sine * terms) if odd else sine * terms
    return (1 - inside) / 2


def _quantile(share: float, dof: float) -> float:
    """Give the value below which Student's t lies with probability `share` > 0.5."""
    if not math.isfinite(dof):
        return NORMAL.inv_cdf(share)
    low, high = 0.0, 1e3
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(middle, int(dof)) > 1 - share else (low, middle)
    return low
