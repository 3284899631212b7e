"""Choose one level for every group so that the gains suffice at the least cost."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

STEPS = 4000
"""Resolution of gains: a solution may gain 1/4000 of the need more for each group than it had to."""


def cover(
    costs: Sequence[Sequence[float]], gains: Sequence[Sequence[float]], needed: float, resolution: int = STEPS
) -> list[int]:
    """Solve the covering knapsack: give every group's level, of least total cost, whose gains reach `needed`.

    `costs[group][level]` may be negative. Dynamic programming over gains rounded down to `resolution` steps, which
    never promises more than there is; what is then not reachable takes every group's largest gain. At the end groups
    go back to cheaper levels where what they gained more is not needed after all, the dearest first.
    """
    return covers(costs, gains, [needed], resolution)[0]


def covers(
    costs: Sequence[Sequence[float]],
    gains: Sequence[Sequence[float]],
    needs: Sequence[float],
    resolution: int = STEPS,
) -> list[list[int]]:
    """Solve `cover` for several needs at the price of one; `resolution` is that of the largest."""
    cheapest = [int(np.argmin(own)) for own in costs]
    if max(needs) <= 0:
        return [cheapest] * len(needs)
    unit = max(needs) / resolution
    steps = [[int(gain / unit + 1e-9) for gain in own] for own in gains]
    least, choices = _table(costs, steps, resolution)
    units = [min(max(math.ceil(needed / unit - 1e-9), 0), resolution) for needed in needs]
    lost = _lost(costs, gains)
    found = []
    for needed, reached, levels in zip(needs, least[units], _levels(choices, steps, units), strict=True):
        if needed <= 0:
            found.append(cheapest)
            continue
        chosen = levels if np.isfinite(reached) else [int(np.argmax(own)) for own in gains]
        found.append(_thrifty(chosen, costs, gains, lost, needed))
    return found


def _table(
    costs: Sequence[Sequence[float]], steps: Sequence[Sequence[int]], most: int
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Give the least cost that covers every need up to `most` steps, and each group's level for it."""
    least = np.full(most + 1, np.inf)  # with the groups so far
    least[0] = 0.0
    choices = np.zeros((len(costs), most + 1), np.int8)
    for group, (own_costs, own_steps) in enumerate(zip(costs, steps, strict=True)):
        before, least = least, np.full(most + 1, np.inf)
        for level, (cost, step) in enumerate(zip(own_costs, own_steps, strict=True)):
            step = min(step, most + 1)
            total = np.full(most + 1, before[0] + cost)
            total[step:] = before[: most + 1 - step] + cost
            better = total < least
            choices[group, better] = level
            least = np.where(better, total, least)
    return least, choices


def _levels(
    choices: NDArray[np.int8], steps: Sequence[Sequence[int]], units: Sequence[int]
) -> list[list[int]]:
    """Give every group's level for each of several needs."""
    left = np.array(units)
    levels = np.zeros((len(units), len(steps)), np.int64)
    for group in reversed(range(len(steps))):
        levels[:, group] = choices[group, left]
        left = np.maximum(left - np.array(steps[group])[levels[:, group]], 0)
    found: list[list[int]] = levels.tolist()
    return found


def _lost(costs: Sequence[Sequence[float]], gains: Sequence[Sequence[float]]) -> list[list[float]]:
    """Give the least gain that each level of every group loses for a cheaper one, infinite if there is none."""
    return [
        [
            min(
                (gain - other for price, other in zip(prices, own, strict=True) if price < cost),
                default=math.inf,
            )
            for cost, gain in zip(prices, own, strict=True)
        ]
        for prices, own in zip(costs, gains, strict=True)
    ]


def _thrifty(
    levels: list[int],
    costs: Sequence[Sequence[float]],
    gains: Sequence[Sequence[float]],
    lost: Sequence[Sequence[float]],
    needed: float,
) -> list[int]:
    """Take groups back to cheaper levels while the need is still met."""
    levels = list(levels)
    spare = sum(own[level] for own, level in zip(gains, levels, strict=True)) - needed
    for group in sorted(range(len(levels)), key=lambda group: -costs[group][levels[group]]):
        own_costs, own_gains, level = costs[group], gains[group], levels[group]
        if lost[group][level] > spare:
            continue
        enough = [i for i, gain in enumerate(own_gains) if own_gains[level] - gain <= spare]
        best = min([level, *enough], key=lambda i: own_costs[i])
        spare -= own_gains[level] - own_gains[best]
        levels[group] = best
    return levels
