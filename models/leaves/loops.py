"""Loops over the rows of tables."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

Step = Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]]


class Fold(nn.Module):
    """Apply a step to a state and the first, second, ... row of each table."""

    def forward(self, step: Step, state: list[Tensor], rows: Sequence[Tensor]) -> list[Tensor]:
        """Give the last state; `step` gets the state and one row `(...)` of each of `rows` `(n, ...)`."""
        for row in zip(*rows, strict=True):
            state = step(state, row)
        return state
