"""Coupling blocks whose transformation is a monotone spline, as in CaloINN (Ernst et al., 2023)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from bitsearch.models.leaves import MonotoneSpline, OutOfBounds, SelectLast


class ActNorm(nn.Module):
    """Scale and shift every coordinate; `initialize` makes one batch have mean 0 and standard deviation 1."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(dimension))
        self.bias = nn.Parameter(torch.zeros(dimension))

    def forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Map `(batch, dimension)` to values of the same shape and the log-determinant, a scalar."""
        return v * torch.exp(self.scale) + self.bias, self.scale.sum()

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`."""
        return (y - self.bias) * torch.exp(-self.scale)

    @torch.no_grad()
    def initialize(self, v: Tensor) -> None:
        """Set both parameters from a batch; a coordinate without spread keeps its scale."""
        deviation = v.std(0)
        self.scale.copy_(torch.where(deviation > 0, -torch.log(deviation.clamp_min(1e-30)), 0.0))
        self.bias.copy_(-v.mean(0) * torch.exp(self.scale))


class Subnet(nn.Module):
    """Feed-forward network that predicts spline parameters; the last layer starts at zero."""

    def __init__(self, sizes: Sequence[int], normalization: bool, activation: type[nn.Module]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes[:-1]):
            layers.append(nn.Linear(inputs, outputs))
            if normalization:
                layers.append(nn.BatchNorm1d(outputs))
            layers.append(activation())
        last = nn.Linear(sizes[-2], sizes[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, passive + condition)` to `(batch, transformed x parameters)`."""
        theta: Tensor = self.layers(x)
        return theta


class CouplingBlock(nn.Module):
    """Transform the second half of the coordinates with splines that the first half chooses, then permute."""

    permutation: Tensor
    inverse_permutation: Tensor

    def __init__(
        self,
        subnet: Subnet,
        permutation: Tensor,
        *,
        spline: str,
        bins: int,
        bound: float,
        out_of_bounds: OutOfBounds,
        normalize: bool,
    ) -> None:
        super().__init__()
        dimension = len(permutation)
        self.transformed = dimension // 2
        self.passive = dimension - self.transformed
        self.actnorm = ActNorm(dimension) if normalize else None
        self.subnet = subnet
        self.spline = MonotoneSpline(spline, bins, bound, out_of_bounds)
        self.select = SelectLast()
        self.register_buffer("permutation", permutation)
        self.register_buffer("inverse_permutation", torch.argsort(permutation))

    def forward(self, v: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Map `(batch, dimension)` towards the latent space; also give the log-determinant `(batch,)`."""
        log_det = v.new_zeros(())
        if self.actnorm is not None:
            v, log_det = self.actnorm(v)
        passive, active = torch.split(v, [self.passive, self.transformed], 1)
        active, log_slope = self._transform(active, passive, condition, inverse=False)
        permuted: Tensor = self.select(torch.cat([passive, active], 1), self.permutation)
        return permuted, log_slope + log_det

    def inverse(self, y: Tensor, condition: Tensor) -> Tensor:
        """Map `(batch, dimension)` towards the data."""
        y = self.select(y, self.inverse_permutation)
        passive, active = torch.split(y, [self.passive, self.transformed], 1)
        active, _ = self._transform(active, passive, condition, inverse=True)
        v = torch.cat([passive, active], 1)
        return v if self.actnorm is None else self.actnorm.inverse(v)

    def _transform(
        self, active: Tensor, passive: Tensor, condition: Tensor, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        theta = self.subnet(torch.cat([passive, condition], 1))
        moved: tuple[Tensor, Tensor] = self.spline(active, theta, inverse)
        return moved
