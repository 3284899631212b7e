"""Landscapes of the loss that agree with a table of real trainings and are rugged between its rows.

A Bayesian linear model over features of the mask: trends in what is gained, an effect of every group, shared and by
option, and interactions of any order as random parities, whose covariance is a kernel in the number of differing bits:
for ±1 bits and subsets S that hold each bit with probability p, E ∏_S s s' = ∏ (1 or 1 - 2p). Scales maximise the
evidence, the noise is that of the repeated trainings. A landscape is a draw of the posterior (Matheron's rule), so
that no policy finds it as smooth as a fit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bitsearch.run.problem import Problem

Array = NDArray[np.float64]

PARITIES = 1500
ORDER = 2.0
"""Mean number of bits in an interaction."""
BROAD = 3.0


@dataclass(frozen=True)
class Scales:
    """Standard deviations of the terms, in those of the losses."""

    shared: float = 0.3
    by_option: float = 0.1
    interactions: float = 0.1
    noise: float = 0.1


class Landscapes:
    """The posterior given losses `(rows, seeds)`, less being better, of parameters."""

    def __init__(self, problem: Problem, rows: Sequence[Mapping[str, str]], losses: Array) -> None:
        self.problem = problem
        spread = losses - losses.mean(0)
        self.noise = float((spread - spread.mean(1, keepdims=True)).std() * _correction(losses.shape[1]))
        self._apart = spread - spread.mean(1, keepdims=True)
        mean = losses.mean(1)
        self.center, self.unit = float(mean.mean()), float(mean.std())
        self.y = (mean - self.center) / self.unit
        bits = len(self._bits(rows[0]))
        rng = np.random.default_rng(0)
        self._subsets = rng.random((PARITIES, bits)) < ORDER / bits
        self.features = np.array([self._features(item) for item in rows])
        self.least_noise = self.noise / np.sqrt(losses.shape[1]) / self.unit
        self.scales = self._climb(Scales(noise=max(self.least_noise, 1e-3)))

    def draw(self, rng: np.random.Generator) -> Array:
        """Draw the weights of a landscape, for `losses`."""
        deviations = self._deviations(self.scales)
        prior = deviations * rng.standard_normal(len(deviations))
        seen = self.features @ prior + self.scales.noise * rng.standard_normal(len(self.y))
        solved = np.linalg.solve(self._covariance(self.scales), self.y - seen)
        drawn: Array = prior + deviations**2 * (self.features.T @ solved)
        return drawn

    def common(self, seed: int) -> tuple[Array, float]:
        """Give the weights of what a seed of trainings adds to similar masks in common, and the noise that is left."""
        one = self._apart[:, seed] * _correction(self._apart.shape[1]) / self.unit
        weights: Array = self._deviations(self.scales) ** 2 * (
            self.features.T @ np.linalg.solve(self._covariance(self.scales), one)
        )
        left = self.noise**2 - float(np.var(self.features @ weights)) * self.unit**2
        return weights, math.sqrt(max(left, 0.0))

    def loss(self, weights: Array, parameters: Mapping[str, str]) -> float:
        """Give the loss of parameters in a landscape."""
        return self.center + self.unit * float(self._features(parameters) @ weights)

    def explained(self) -> dict[str, float]:
        """Give the share of the variance that leave-one-out explains, with all terms and without some."""
        without = {
            "all terms": self.scales,
            "no interactions": self._climb(replace(self.scales, interactions=1e-6), ("shared", "by_option")),
            "shared effects alone": self._climb(
                replace(self.scales, interactions=1e-6, by_option=1e-6), ("shared",)
            ),
        }
        found = {}
        for name, scales in without.items():
            inverse = np.linalg.inv(self._covariance(scales))
            found[name] = 1 - float(np.mean((inverse @ self.y / np.diag(inverse)) ** 2))
        return found

    def _bits(self, parameters: Mapping[str, str]) -> list[float]:
        levels = self.problem.levels(parameters)
        bits = [
            float(level == i)
            for level, own in zip(levels, self.problem.gains.values(), strict=True)
            for i in range(1, len(own))
        ]
        for name, values in self.problem.options.items():
            bits += [float(parameters[name] == value) for value in values[1:]]
        return bits

    def _features(self, parameters: Mapping[str, str]) -> Array:
        bits = np.array(self._bits(parameters))
        options = sum(len(values) - 1 for values in self.problem.options.values())
        mask, chosen = bits[: len(bits) - options], bits[len(bits) - options :]
        gain = self.problem.gain(parameters)
        self._sizes = 1, options, 1 + options, len(mask), options * len(mask)
        signs = np.where(self._subsets, 1 - 2 * bits, 1.0).prod(1)
        parts: list[Array] = [
            np.ones(1),
            chosen,
            np.array([gain, *(gain * chosen)]),
            mask,
            np.outer(chosen - 0.5, mask).ravel(),
            signs,
        ]
        return np.concatenate(parts)

    def _deviations(self, scales: Scales) -> Array:
        one, options, trends, shared, by_option = self._sizes
        counts = np.array([one + options + trends, shared, by_option, PARITIES])
        each = (
            BROAD,
            scales.shared / np.sqrt(shared),
            scales.by_option / np.sqrt(max(shared, 1)),
            scales.interactions / np.sqrt(PARITIES),
        )
        return np.repeat(each, counts)

    def _covariance(self, scales: Scales) -> Array:
        scaled = self.features * self._deviations(scales)
        total: Array = scaled @ scaled.T + scales.noise**2 * np.eye(len(self.y))
        return total

    def _evidence(self, scales: Scales) -> float:
        root = np.linalg.cholesky(self._covariance(scales))
        white = np.linalg.solve(root, self.y)
        return float(-0.5 * white @ white - np.log(np.diag(root)).sum())

    def _climb(
        self, scales: Scales, names: Sequence[str] = ("shared", "by_option", "interactions", "noise")
    ) -> Scales:
        best = self._evidence(scales)
        for factor, name in product((4.0, 2.0, 2.0, 1.4, 1.2), names):
            for step in (factor, 1 / factor):
                floor = max(self.least_noise, 1e-3) if name == "noise" else 1e-3
                tried = replace(scales, **{name: max(asdict(scales)[name] * step, floor)})
                if (found := self._evidence(tried)) > best:
                    scales, best = tried, found
                    break
        return scales


def _correction(seeds: int) -> float:
    """Correct a deviation from the mean of few for the freedom that the mean took."""
    return float(np.sqrt(seeds / (seeds - 1)))
