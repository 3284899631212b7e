"""CaloDREAM's two networks and the loss that both are trained on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bitsearch.models.calodream.attention import LoneAttention
from bitsearch.models.calodream.chains import LOG10_RANGE, Standardization
from bitsearch.models.calodream.energy import EnergyNetwork, EnergySizes
from bitsearch.models.calodream.shape import ShapeNetwork, ShapeSizes
from bitsearch.models.calodream.solver import Solver

PARTS = ("energy", "shape")


@dataclass(frozen=True)
class Architecture:
    """Grid (layers, angles, radii) of the showers and the sizes of both networks."""

    grid: tuple[int, int, int]
    threshold_mev: float
    energy: EnergySizes
    shape: ShapeSizes

    @property
    def layers(self) -> int:
        """Number of calorimeter layers."""
        return self.grid[0]

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.grid)

    def solved(self, solver: str) -> "Architecture":
        """Give the same networks with another solver: `METHOD-STEPS`, or one for energies and one for voxels, by `/`.

        Raises:
            ConfigurationError: the text names no solver.
        """
        energy, _, shape = solver.partition("/")
        return replace(
            self,
            energy=replace(self.energy, solver=Solver.parse(energy)),
            shape=replace(self.shape, solver=Solver.parse(shape or energy)),
        )


class CaloDREAM(nn.Module):
    """Both networks, and the transformation of normalised showers that they are trained on.

    Showers are columns `(batch, voxels + layers)`: voxels as shares of their layer, then the energy ratios u.
    The condition `(batch, 1)` is log10 of the incident energy in GeV.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.standardization = Standardization(a.voxels, a.layers)
        self.energy = EnergyNetwork(a.layers, a.energy)
        self.shape = ShapeNetwork(a.grid, 1 + a.layers, a.shape)
        self.never_run = tuple(
            f"{name}.{part}"
            for name, module in self.named_modules()
            if isinstance(module, LoneAttention)
            for part in module.NEVER_RUN
        )

    def losses(
        self, columns: Tensor, condition: Tensor, t: Tensor, noise: Tensor, parts: Sequence[str] = PARTS
    ) -> Tensor:
        """Give the mean squared errors of the velocities `(batch, parts)` on straight paths from noise to data.

        `t` `(batch, layers + 1)` holds one time for the energy of each layer, then one for all voxels; `noise` is
        like `columns`. Each layer knows the true layers before it, the shape the true energies.
        """
        a = self.architecture
        data = self.standardization(columns)
        times = torch.cat([t[:, -1:].expand(-1, a.voxels), t[:, :-1]], 1)
        target = data - noise
        path = noise + times * target
        energy = condition / LOG10_RANGE
        ratios = data[:, a.voxels :]
        errors = []
        if "energy" in parts:
            velocity = self.energy(energy, ratios, path[:, a.voxels :], t[:, :-1])
            errors.append((velocity - target[:, a.voxels :]).square().mean(1))
        if "shape" in parts:
            velocity = self.shape(path[:, : a.voxels], t[:, -1:], torch.cat([energy, ratios], 1))
            errors.append((velocity - target[:, : a.voxels]).square().mean(1))
        return torch.stack(errors, 1)
