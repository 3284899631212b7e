"""What of CaloDREAM is exported: the whole generator, its losses and its velocities."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bitsearch.models.calodream.chains import LOG10_RANGE, Postprocessing
from bitsearch.models.calodream.network import CaloDREAM
from bitsearch.models.calodream.solver import integrate, stages
from bitsearch.models.leaves import Fold
from bitsearch.models.showers.normalization import MEV_PER_GEV


class Generator(nn.Module):
    """The served graph: noise and incident energies in MeV to showers in MeV, solvers included."""

    def __init__(self, network: CaloDREAM) -> None:
        super().__init__()
        a = network.architecture
        self.network = network
        self.energy_stages = stages(a.energy.solver)
        self.shape_stages = stages(a.shape.solver)
        self.fold = Fold()
        self.postprocessing = Postprocessing(a.layers, a.threshold_mev)

    def forward(self, incident_energy: Tensor, noise_energy: Tensor, noise_shape: Tensor) -> Tensor:
        """Map `(batch, 1)`, `(batch, layers)` and `(batch, voxels)` to voxel energies `(batch, voxels)`."""
        condition = torch.log(incident_energy / MEV_PER_GEV) * (1 / (LOG10_RANGE * math.log(10)))
        ratios = self.ratios(condition, noise_energy)
        voxels = self.voxels(torch.cat([condition, ratios], 1), noise_shape)
        columns = self.network.standardization.invert(torch.cat([voxels, ratios], 1))
        generated: Tensor = self.postprocessing(columns, incident_energy)
        return generated

    def ratios(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Make standardised energy ratios `(batch, layers)`, one layer after the other."""
        network = self.network.energy
        memory = network.encode(condition)
        times = network.embed_time(self.energy_stages.times.to(noise.device))

        def layer(state: Sequence[Tensor], row: Sequence[Tensor]) -> list[Tensor]:
            (values,), (chosen,) = state, row
            context = (network.decode(memory, values) * chosen[:, None]).sum(1)
            start = (noise * chosen).sum(1, keepdim=True)
            end = integrate(
                lambda x, time: network.move(x, time.expand(x.shape[0], -1), context),
                start,
                self.energy_stages,
                times,
                self.fold,
            )
            return [values + end * chosen]

        one_hot = torch.eye(network.layers, device=noise.device)
        ratios: Tensor = self.fold(layer, [torch.zeros_like(noise)], [one_hot])[0]
        return ratios

    def voxels(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Make standardised voxels `(batch, voxels)` for `condition` `(batch, 1 + layers)`."""
        network = self.network.shape
        steered = network.condition(condition)
        times = network.embed_time(self.shape_stages.times.to(noise.device))
        return integrate(
            lambda x, time: network.move(x, time + steered), noise, self.shape_stages, times, self.fold
        )


class Losses(nn.Module):
    """The measured graph: normalised showers, times and noise to the losses of both networks."""

    def __init__(self, network: CaloDREAM) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, condition: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Map to `(batch, 2)`: energy, shape."""
        return self.network.losses(x, condition, t, noise)


class EnergyContext(nn.Module):
    """What the energy network knows before each layer."""

    def __init__(self, network: CaloDREAM) -> None:
        super().__init__()
        self.network = network

    def forward(self, condition: Tensor, values: Tensor) -> Tensor:
        """Map `(batch, 1)` and `(batch, layers)` to `(batch, layers, width)`."""
        energy = self.network.energy
        return energy.decode(energy.encode(condition), values)


class EnergyVelocity(nn.Module):
    """The velocity of one layer's energy ratio."""

    def __init__(self, network: CaloDREAM) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """Map `(batch, 1)`, `(batch, 1)` and `(batch, width)` to `(batch, 1)`."""
        energy = self.network.energy
        return energy.move(x, energy.embed_time(t), context)


class ShapeVelocity(nn.Module):
    """The velocity of all voxels."""

    def __init__(self, network: CaloDREAM) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Map `(batch, voxels)`, `(batch, 1)` and `(batch, 1 + layers)` to `(batch, voxels)`."""
        v: Tensor = self.network.shape(x, t, condition)
        return v
