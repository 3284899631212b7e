"""Edge convolutions (ParticleNet's, as P-DAT takes them): pointwise layers, then a mean over neighbours."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bitsearch.models.leaves import RowByRow

FAR = 1e9
FeatureNeighbours = Literal["knn", "pointwise_as_coded"]


class Pointwise(nn.Module):
    """Linear layers applied to every entry alone (1x1 convolutions), each with BatchNorm and GELU behind."""

    def __init__(self, sizes: Sequence[int], bias: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(*ends, bias) for ends in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(outputs) for outputs in sizes[1:])
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., inputs)` to `(..., outputs)`."""
        y = x.reshape(-1, x.shape[-1])
        for linear, norm in zip(self.linears, self.norms, strict=True):
            y = functional.gelu(norm(linear(y)))
            if self.dropout:
                y = functional.dropout(y, self.dropout, self.training)
        return y.reshape(*x.shape[:-1], y.shape[-1])


class SpaceConvolution(nn.Module):
    """Pointwise layers on the features of neighbours in space, and their mean."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.pointwise = Pointwise(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., neighbours, inputs)` to `(..., outputs)`."""
        y: Tensor = self.pointwise(x)
        return y.mean(-2)


class FeatureConvolution(nn.Module):
    """Pointwise layers on the features of neighbours in feature space, and their mean.

    What is computed of a neighbour depends on it alone, so it is computed once a particle and not once a
    neighbour. `pointwise_as_coded` takes no mean: the published code gathers copies of the particle itself.
    """

    def __init__(self, sizes: Sequence[int], neighbours: int, form: FeatureNeighbours) -> None:
        super().__init__()
        self.pointwise = Pointwise(sizes)
        self.neighbours, self.form = neighbours, form
        self.rows = RowByRow()

    def forward(self, x: Tensor, filled: Tensor, real: Tensor | None) -> Tensor:
        """Map `(batch, particles, inputs)` to `(batch, particles, outputs)`."""
        y: Tensor = self.rows(self.pointwise, x, filled, real)
        if self.form == "pointwise_as_coded":
            return y
        near = nearest(x.detach(), real, self.neighbours)
        return (near @ y) / near.sum(2, keepdim=True).clamp_min(1)


def nearest(x: Tensor, real: Tensor | None, neighbours: int) -> Tensor:
    """Mark with 1 the nearest in feature space, itself included, of every particle `(batch, particles, width)`.

    What lies as far as the last neighbour counts as one, so that no order among equals is needed.
    """
    # |x_i - x_j|² without |x_i|², which ranks the same
    distance = x.square().sum(2)[:, None] - 2 * (x @ x.transpose(1, 2))
    if real is not None:
        distance = torch.where(real[:, None], distance, FAR)
    last = distance.topk(neighbours, dim=2, largest=False).values[:, :, -1:]
    near = distance <= last
    if real is not None:
        near = near & real[:, None]
    return near.to(x.dtype)
