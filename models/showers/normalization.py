"""Showers as normalised layers with energy ratios, and back (CaloINN, section 3.2 of Ernst et al., 2023)."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitsearch.models.showers.files import Events
from bitsearch.models.showers.geometry import Geometry

OFFSET = 1e-10
MEV_PER_GEV = 1000.0


@dataclass(frozen=True)
class Selection:
    """Which events are trained on: the window of E_total/E_incident and the largest voxel in GeV."""

    response: tuple[float, float]
    voxel_gev: float = np.inf


def normalize(
    events: Events, geometry: Geometry, selection: Selection
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turn selected events into columns `(selected, voxels + layers)` and log10 E_incident/GeV `(selected, 1)`.

    The columns are the voxels as shares of their layer, then u_0 = E_total/E_incident and u_i = E_(i-1) over the
    energy in layer i-1 and all behind it. An empty layer stays zero.
    """
    incident = events.incident_mev.astype(np.float64)[:, None] / MEV_PER_GEV
    showers = events.showers_mev.astype(np.float64) / MEV_PER_GEV
    layers = np.add.reduceat(showers, geometry.boundaries[:-1], axis=1)
    behind = layers[:, ::-1].cumsum(1)[:, ::-1]
    response = behind[:, :1] / incident
    ratios = layers[:, :-1] / (behind[:, :-1] + OFFSET)
    sizes = np.diff(geometry.boundaries)
    shares = showers / (np.repeat(layers, sizes, axis=1) + OFFSET)
    low, high = selection.response
    keep = (response[:, 0] >= low) & (response[:, 0] < high) & (showers < selection.voxel_gev).all(1)
    columns = np.concatenate([shares, response, ratios], axis=1)[keep]
    return columns.astype(np.float32), np.log10(incident[keep]).astype(np.float32)


class Denormalization(nn.Module):
    """Turn columns of `normalize` with noise of width `noise` back into showers in MeV, inside any graph."""

    def __init__(self, boundaries: tuple[int, ...], noise: float) -> None:
        super().__init__()
        self.sizes = [stop - start for start, stop in pairwise(boundaries)]
        self.noise = noise

    def forward(self, columns: Tensor, incident_mev: Tensor) -> Tensor:
        """Map `(batch, voxels + layers)` and `(batch, 1)` to voxel energies `(batch, voxels)`.

        Entries below twice the noise width become zero; a layer whose voxels all do loses its energy.
        """
        columns = columns - self.noise
        columns = torch.where(columns < self.noise, 0.0, columns)
        voxels, ratios = torch.split(columns, [sum(self.sizes), len(self.sizes)], 1)
        total = incident_mev * ratios[:, :1]
        energies = layer_energies(total, ratios[:, 1:].clamp(0.0, 1.0))
        if len(set(self.sizes)) == 1:
            grid = voxels.reshape(-1, len(self.sizes), self.sizes[0])
            scale = _per_share(torch.cat(energies, 1).unsqueeze(2), grid.sum(2, keepdim=True))
            return (grid * scale).flatten(1)
        return torch.cat(
            [
                layer * _per_share(energy, layer.sum(1, keepdim=True))
                for layer, energy in zip(torch.split(voxels, self.sizes, 1), energies, strict=True)
            ],
            1,
        )


def layer_energies(total: Tensor, shares: Tensor) -> list[Tensor]:
    """Deal the energy `(batch, 1)` to the layers: each takes its share of what is left, the last takes the rest."""
    energies = []
    for share in torch.split(shares, 1, 1):
        energies.append(total * share)
        total = total - energies[-1]
    return [*energies, total]


def _per_share(energy: Tensor, shares: Tensor) -> Tensor:
    """Divide; the energy of a layer without shares is lost rather than multiplied by 1/OFFSET."""
    return torch.where(shares > 0, energy / (shares + OFFSET), 0.0)
