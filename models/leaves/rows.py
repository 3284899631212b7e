"""Functions of rows that must be applied to real ones alone, or need not be applied to copies."""

import math
from collections.abc import Callable

from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


class RowByRow(nn.Module):
    """Apply a function, which treats every row alone, to the slots of events.

    In training it sees real slots alone, where they are told, so that padding costs nothing and normalisation sees
    none. What is not real may then be anything in the result. From slot `filled` on, the slots of an event are the
    same: an export computes the first of them and copies.
    """

    def forward(self, function: Function, x: Tensor, filled: Tensor, real: Tensor | None) -> Tensor:
        """Map `(batch, slots, ...)` to `(batch, slots, ...)`; `filled` is `(batch,)`, `real` `(batch, slots)`."""
        if real is None or not self.training:
            return function(x)
        return over_real(function, x, real)


class PairByPair(nn.Module):
    """Apply a function, which treats every row alone, to the features of all pairs of slots.

    `entries` says where each entry of a matrix finds its pair. The features of a slot with itself are all 1. As in
    `RowByRow`, `real` matters in training, and an export computes pairs that are the same but once.
    """

    def forward(
        self, function: Function, features: Tensor, entries: Tensor, filled: Tensor, real: Tensor | None
    ) -> Tensor:
        """Map `(batch, pairs, features)` to a table `(batch, slots, slots, ...)`; `real` is `(batch, pairs)`."""
        seen = real is not None and self.training
        values = over_real(function, features, real) if real is not None and seen else function(features)
        slots = math.isqrt(len(entries))
        return values.index_select(1, entries).reshape(values.shape[0], slots, slots, *values.shape[2:])


def over_real(function: Function, x: Tensor, real: Tensor) -> Tensor:
    """Apply a function to the rows of `x` `(..., n)` that `real` `(...)` marks; others are 0 in the result."""
    rows = real.flatten().nonzero()[:, 0]
    y = function(x.reshape(real.numel(), *x.shape[real.ndim :]).index_select(0, rows))
    empty = y.new_zeros(real.numel(), *y.shape[1:])
    filled: Tensor = empty.index_copy(0, rows, y).reshape(*real.shape, *y.shape[1:])
    return filled
