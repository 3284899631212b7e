"""Choose one level for every group so that the gains suffice at the least cost."""

from collections.abc import Sequence

import numpy as np

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
    if needed <= 0:
        return [int(np.argmin(own)) for own in costs]
    unit = needed / resolution
    steps = [[int(gain / unit + 1e-9) for gain in own] for own in gains]
    levels = _cheapest(costs, steps, resolution)
    if levels is None:
        levels = [int(np.argmax(own)) for own in gains]
    spare = sum(own[level] for own, level in zip(gains, levels, strict=True)) - needed
    for group in sorted(range(len(levels)), key=lambda group: -costs[group][levels[group]]):
        own_costs, own_gains, level = costs[group], gains[group], levels[group]
        enough = [i for i, gain in enumerate(own_gains) if own_gains[level] - gain <= spare]
        best = min([level, *enough], key=lambda i: own_costs[i])
        spare -= own_gains[level] - own_gains[best]
        levels[group] = best
    return levels


def _cheapest(
    costs: Sequence[Sequence[float]], steps: Sequence[Sequence[int]], needed: int
) -> list[int] | None:
    """Solve it in whole steps; None where all steps together are too few."""
    least = np.full(needed + 1, np.inf)  # the least cost that covers every need, with the groups so far
    least[0] = 0.0
    choices = np.zeros((len(costs), needed + 1), np.int8)
    for group, (own_costs, own_steps) in enumerate(zip(costs, steps, strict=True)):
        before, least = least, np.full(needed + 1, np.inf)
        for level, (cost, step) in enumerate(zip(own_costs, own_steps, strict=True)):
            step = min(step, needed + 1)
            total = np.full(needed + 1, before[0] + cost)
            total[step:] = before[: needed + 1 - step] + cost
            better = total < least
            choices[group, better] = level
            least = np.where(better, total, least)
    if not np.isfinite(least[needed]):
        return None
    levels, left = [0] * len(costs), needed
    for group in reversed(range(len(costs))):
        levels[group] = int(choices[group, left])
        left = max(left - steps[group][levels[group]], 0)
    return levels
