"""Integrate dx/dt = v(x, t) from 0 to 1 by an explicit method in equal steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bitsearch.core.errors import ConfigurationError, one_of
from bitsearch.models.leaves import Fold

ADAMS = "adams"
Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class RungeKutta:
    """Butcher's tableau without its zeros: row i of `arguments` weighs the slopes before stage i + 1."""

    arguments: Rows
    weights: tuple[float, ...]


METHODS = {
    "euler": RungeKutta((), (1,)),
    "midpoint": RungeKutta(((1 / 2,),), (0, 1)),
    "heun": RungeKutta(((1,),), (1 / 2, 1 / 2)),
    "kutta": RungeKutta(((1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)),
}
"""Methods of one step, by name; `kutta` is the 3/8-rule, the published "RK4"."""


@dataclass(frozen=True)
class Solver:
    """A method and the number of its equal steps.

    `adams` is the method of Adams and Bashforth with two slopes: of second order at one evaluation a step, since it
    keeps the slope of the step before; its first step is Euler's.
    """

    method: str
    steps: int

    @classmethod
    def parse(cls, text: str) -> "Solver":
        """Read `METHOD-STEPS`.

        Raises:
            ConfigurationError: the method is not known or the number of steps is none from 1 on.
        """
        method, _, steps = text.partition("-")
        known = (*METHODS, ADAMS)
        if method not in known:
            raise ConfigurationError(f"solver {text!r}: found the method {method!r}; {one_of(method, known)}")
        if not steps.isdecimal() or int(steps) < 1:
            raise ConfigurationError(f"solver {text!r}: found {steps!r} steps, expected a number from 1 on")
        return cls(method, int(steps))

    @property
    def evaluations(self) -> int:
        """Evaluations of the velocity."""
        return self.steps * (1 if self.method == ADAMS else len(METHODS[self.method].weights))

    def __str__(self) -> str:
        """Write `METHOD-STEPS`."""
        return f"{self.method}-{self.steps}"


@dataclass(frozen=True)
class Stages:
    """Tables with one row for each evaluation of the velocity, n in all.

    At `times` `(n, 1)` the velocity of x + arguments · k is written to the `slots` of the kept slopes k; then x moves
    by updates · k, which is 0 but for the last stage of a step. All three are `(n, kept)`.
    """

    times: Tensor
    arguments: Tensor
    slots: Tensor
    updates: Tensor


def stages(solver: Solver) -> Stages:
    """Lay out the evaluations of all steps."""
    steps = solver.steps
    starts = torch.arange(steps, dtype=torch.float64)[:, None] * (1 / steps)
    edges = torch.cat([starts, torch.ones(1, 1, dtype=torch.float64)])
    sizes = edges.diff(dim=0)
    if solver.method == ADAMS:
        # Slopes take turns in two slots: the new one weighs 3/2 of a step, the one before -1/2.
        turns = torch.arange(steps) % 2
        slots = torch.nn.functional.one_hot(turns, 2).bool()
        updates = torch.where(slots, 1.5, -0.5) * sizes
        updates[0] = sizes[0] * slots[0]
        return Stages(starts.float(), torch.zeros(steps, 2), slots, updates.float())
    rows, weights = METHODS[solver.method].arguments, METHODS[solver.method].weights
    kept = len(weights)
    matrix = torch.zeros(kept, kept, dtype=torch.float64)
    for index, row in enumerate(rows, 1):
        matrix[index, : len(row)] = torch.tensor(row, dtype=torch.float64)
    times = starts + sizes * torch.tensor([0.0, *map(sum, rows)], dtype=torch.float64)
    updates = torch.zeros(steps, kept, kept, dtype=torch.float64)
    updates[:, -1] = sizes * torch.tensor(weights, dtype=torch.float64)
    return Stages(
        times.reshape(-1, 1).float(),
        (sizes[:, :, None] * matrix).reshape(-1, kept).float(),
        torch.eye(kept, dtype=torch.bool).repeat(steps, 1),
        updates.reshape(-1, kept).float(),
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
    kept = plan.slots.shape[1]
    moved: Tensor = fold(stage, [x, x.new_zeros(kept, *x.shape)], [times, *tables])[0]
    return moved


def _weighted(weights: Tensor, slopes: Tensor) -> Tensor:
    return (weights[:, None, None] * slopes).sum(0)
