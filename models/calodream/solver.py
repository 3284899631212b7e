"""Integrate dx/dt = v(x, t) from 0 to 1 by the 3/8-rule of Kutta."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bitsearch.models.leaves import Fold

THIRD = 1 / 3
TIMES = (0.0, THIRD, 2 * THIRD, 1.0)
ARGUMENTS = ((0, 0, 0, 0), (THIRD, 0, 0, 0), (-THIRD, 1, 0, 0), (1, -1, 1, 0))
WEIGHTS = (1 / 8, 3 / 8, 3 / 8, 1 / 8)


@dataclass(frozen=True)
class Stages:
    """Tables with one row for each evaluation of the velocity, four to a step.

    At `times` `(n, 1)` the velocity of x + arguments · k is written to the `slots` of the four slopes k; then
    x moves by updates · k, which is 0 but for the last stage of a step. All three are `(n, 4)`.
    """

    times: Tensor
    arguments: Tensor
    slots: Tensor
    updates: Tensor


def stages(step: float) -> Stages:
    """Lay out the steps; one that does not divide the interval leaves a shorter last step."""
    edges = torch.arange(math.ceil(1 / step + 1), dtype=torch.float64) * step
    edges[-1] = 1.0
    sizes = edges.diff()[:, None]
    count = len(sizes)
    times = edges[:-1, None] + sizes * torch.tensor(TIMES, dtype=torch.float64)
    updates = torch.zeros(count, 4, 4, dtype=torch.float64)
    updates[:, 3] = sizes * torch.tensor(WEIGHTS, dtype=torch.float64)
    arguments = sizes[:, None] * torch.tensor(ARGUMENTS, dtype=torch.float64)
    return Stages(
        times.reshape(-1, 1).float(),
        arguments.reshape(-1, 4).float(),
        torch.eye(4, dtype=torch.bool).repeat(count, 1),
        updates.reshape(-1, 4).float(),
    )


def integrate(
    velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor, plan: Stages, times: Tensor, fold: Fold
) -> Tensor:
    """Move `x` `(batch, n)` from 0 to 1; `velocity` gets x and its row of `times`, the embedded `plan.times`."""

    def stage(state: Sequence[Tensor], row: Sequence[Tensor]) -> list[Tensor]:
        (x, slopes), (time, arguments, slot, updates) = state, row
        slope = velocity(x + _weighted(arguments, slopes), time)
        slopes = torch.where(slot[:, None, None], slope, slopes)
        return [x + _weighted(updates, slopes), slopes]

    tables = [table.to(x.device) for table in (plan.arguments, plan.slots, plan.updates)]
    moved: Tensor = fold(stage, [x, x.new_zeros(4, *x.shape)], [times, *tables])[0]
    return moved


def _weighted(weights: Tensor, slopes: Tensor) -> Tensor:
    return (weights[:, None, None] * slopes).sum(0)
