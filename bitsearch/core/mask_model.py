"""A Bayesian model of the loss over masks: an effect of every group's precision, shared and by model option.

    loss = offset(option) + trends(fraction, count, score) + Σ_g effect(g, level) + Σ_g effect(option, g, level)
           + residual(mask) + noise

All terms are normal, so that posteriors are exact (Rasmussen & Williams, Gaussian Processes, Eqs. (2.25), (2.26));
their scales maximise the evidence (Eq. (5.8)). The residual, a Gaussian process in the number of groups that differ,
takes part where it lowers the leave-one-out error (Eqs. (5.10)-(5.12)).
"""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BROAD = 3.0
"""Scale of offsets and trends, in standard deviations of the losses: as good as free."""
SMALLEST_NOISE = 0.02
FEWEST_FOR_RESIDUAL = 16
DOUBTED = 2.0
GAIN_OF_RESIDUAL = 0.95
"""The residual takes part if it lowers the mean squared leave-one-out error to this share or less."""


@dataclass(frozen=True)
class Scales:
    """Standard deviations of the terms, in those of the losses."""

    shared: float = 0.3
    by_option: float = 0.1
    residual: float = 0.0
    noise: float = 0.2


class MaskModel:
    """Fit losses `(n,)` of masks `(n, effects)` of 0s and 1s under options `(n,)`; lower is better.

    `trends` `(effects, k)` are what every effect may follow: its share of parameters, its sensitivity. `spread`
    `(effects,)`, 1 in the mean, is the variance of effects about them.
    """

    def __init__(
        self,
        masks: Array,
        options: NDArray[np.int64],
        losses: Array,
        trends: Array,
        start: Scales | None = None,
        spread: Array | None = None,
    ) -> None:
        self.count = int(options.max(initial=0)) + 1
        self.trends = trends / np.maximum(np.abs(trends).sum(0), 1e-12)
        self.masks, self.options = masks, options
        # Effects come in a sum: each has its part of the variance.
        self._spread = np.ones(masks.shape[1]) if spread is None else spread
        self._spread = self._spread / max(masks.shape[1], 1)
        self.center, self.unit = float(losses.mean()), max(float(losses.std()), 1e-12)
        self.y = (losses - self.center) / self.unit
        self._same = (options[:, None] == options[None, :]).astype(float)
        followed = masks @ self.trends
        broad = 1.0 + self._same + followed @ followed.T + self._same * (followed @ followed.T)
        self._broad = BROAD**2 * broad
        self._linear = (masks * self._spread) @ masks.T
        self._near = _near(masks, masks) * (0.5 + 0.5 * self._same)
        start = start or Scales()
        self.scales = self._climb(replace(start, residual=0.0), ("shared", "by_option", "noise"))
        if len(losses) >= FEWEST_FOR_RESIDUAL:
            begin = replace(self.scales, residual=start.residual or max(self.scales.noise, 0.1))
            full = self._climb(begin, ("shared", "by_option", "residual", "noise"))
            if self.error(full) <= GAIN_OF_RESIDUAL * self.error(self.scales):
                self.scales = full

    def error(self, scales: Scales) -> float:
        """Give the mean squared leave-one-out error, in variances of the losses."""
        inverse = np.linalg.inv(self._covariance(scales))
        return float(np.mean((inverse @ self.y / np.diag(inverse)) ** 2))

    def evidence(self, scales: Scales) -> float:
        """Give the logarithm of the probability of the losses."""
        try:
            root = np.linalg.cholesky(self._covariance(scales))
        except np.linalg.LinAlgError:
            return -np.inf
        white = np.linalg.solve(root, self.y)
        return float(-0.5 * white @ white - np.log(np.diag(root)).sum())

    def effects(self, rng: np.random.Generator | None = None, width: float = 1.0) -> tuple[Array, Array]:
        """Give offsets `(options,)` and effects `(options, effects)` in units of the loss.

        The posterior's mean, or with `rng` a draw of it, `width` times as far from the mean (Matheron's rule).
        """
        mean = self._explained(self._weights)
        if rng is None:
            offsets, effects = mean
        else:
            prior, values = self._draw(rng)
            correction = self._explained(
                np.linalg.solve(self._root.T, np.linalg.solve(self._root, self.y - values))
            )
            drawn = prior[0] + correction[0], prior[1] + correction[1]
            offsets, effects = (m + width * (d - m) for m, d in zip(mean, drawn, strict=True))
        return offsets * self.unit + self.center, effects * self.unit

    def expected(self) -> Array:
        """Give the losses `(n,)` of the masks that it was fitted to, without their noise.

        None lies farther from what was measured than `DOUBTED` standard deviations of the noise: there the model errs.
        """
        offsets, effects = self.effects()
        single = (self.masks * effects[self.options]).sum(1) + self.residual(self.masks, self.options)
        measured, most = self.y * self.unit + self.center, DOUBTED * self.scales.noise * self.unit
        expected: Array = np.clip(offsets[self.options] + single, measured - most, measured + most)
        return expected

    def residual(self, masks: Array, options: NDArray[np.int64]) -> Array:
        """Give the mean of the residual for other masks `(m, effects)`, in units of the loss."""
        if not self.scales.residual:
            return np.zeros(len(masks))
        same: Array = (options[:, None] == self.options[None, :]).astype(np.float64)
        near = _near(masks, self.masks) * (0.5 + 0.5 * same)
        residual: Array = self.scales.residual**2 * near @ self._weights * self.unit
        return residual

    @cached_property
    def _root(self) -> Array:
        return np.asarray(np.linalg.cholesky(self._covariance(self.scales)), np.float64)

    @cached_property
    def _weights(self) -> Array:
        solved: Array = np.linalg.solve(self._root.T, np.linalg.solve(self._root, self.y))
        return solved

    def _covariance(self, scales: Scales) -> Array:
        linear = scales.shared**2 * self._linear + scales.by_option**2 * self._same * self._linear
        total: Array = self._broad + linear + scales.residual**2 * self._near
        return total + scales.noise**2 * np.eye(len(self.y))

    def _climb(self, scales: Scales, names: tuple[str, ...]) -> Scales:
        """Maximise the evidence one scale at a time, in ever finer factors."""
        best = self.evidence(scales)
        for factor, name in product((4.0, 2.0, 1.4), names):
            for step in (factor, 1 / factor):
                floor = SMALLEST_NOISE if name == "noise" else 1e-3
                value = min(max(asdict(scales)[name] * step, floor), 10.0)
                tried = replace(scales, **{name: value})
                found = self.evidence(tried)
                if found > best:
                    scales, best = tried, found
                    break
        return scales

    def _explained(self, weights: Array) -> tuple[Array, Array]:
        """Give prior covariance of offsets and effects with the data, times `weights` `(n,)`."""
        offsets, effects = np.zeros(self.count), np.zeros((self.count, self.masks.shape[1]))
        moved = self.masks.T @ weights
        common = BROAD**2 * self.trends @ (self.trends.T @ moved)
        common = common + self.scales.shared**2 * self._spread * moved
        for option in range(self.count):
            own = weights * (self.options == option)
            part = self.masks.T @ own
            offsets[option] = BROAD**2 * (weights.sum() + own.sum())
            effects[option] = common + BROAD**2 * self.trends @ (self.trends.T @ part)
            effects[option] += self.scales.by_option**2 * self._spread * part
        return offsets, effects

    def _draw(self, rng: np.random.Generator) -> tuple[tuple[Array, Array], Array]:
        """Draw offsets and effects from the prior, and losses that they would have given."""
        groups, kinds = self.trends.shape
        offsets = BROAD * (rng.standard_normal() + rng.standard_normal(self.count))
        slopes = BROAD * (rng.standard_normal(kinds) + rng.standard_normal((self.count, kinds)))
        single = self.scales.shared * rng.standard_normal(groups)
        single = single + self.scales.by_option * rng.standard_normal((self.count, groups))
        effects = slopes @ self.trends.T + single * np.sqrt(self._spread)
        values = offsets[self.options] + (self.masks * effects[self.options]).sum(1)
        values = values + self.scales.noise * rng.standard_normal(len(self.y))
        if self.scales.residual:
            root = np.linalg.cholesky(self._near + 1e-9 * np.eye(len(self.y)))
            values = values + self.scales.residual * root @ rng.standard_normal(len(self.y))
        return (offsets, effects), values


def _near(some: Array, others: Array) -> Array:
    """Compare masks `(a, effects)` and `(b, effects)`: 1 where equal, 1/e where a quarter differs."""
    apart = some @ (1 - others.T) + (1 - some) @ others.T
    near: Array = np.exp(-4.0 * apart / max(some.shape[1], 1))
    return near
