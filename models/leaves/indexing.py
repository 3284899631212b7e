"""Indexing of the last axis."""

from torch import Tensor, nn


class SelectLast(nn.Module):
    """Select entries of the last axis."""

    def forward(self, x: Tensor, order: Tensor) -> Tensor:
        """Map `(..., n)` and `(m,)` to `(..., m)`."""
        return x.index_select(-1, order)
