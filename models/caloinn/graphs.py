"""What of CaloINN is exported: the sampler, which users run, and the density, which the search measures."""

import math

import torch
from torch import Tensor, nn

from bitsearch.models.caloinn.network import CaloINN
from bitsearch.models.showers.normalization import MEV_PER_GEV, Denormalization


class Sampler(nn.Module):
    """The served graph: latent vectors and incident energies in MeV to showers in MeV."""

    def __init__(self, network: CaloINN) -> None:
        super().__init__()
        self.network = network
        self.denormalization = Denormalization(network.architecture.boundaries, network.architecture.noise)

    def forward(self, z: Tensor, incident_energy: Tensor) -> Tensor:
        """Map `(batch, dimension)` and `(batch, 1)` to voxel energies `(batch, voxels)`."""
        condition = torch.log(incident_energy / MEV_PER_GEV) * (1 / math.log(10))
        showers: Tensor = self.denormalization(self.network.inverse(z, condition), incident_energy)
        return showers


class Density(nn.Module):
    """The measured graph: normalised showers to the negative log-likelihood of ln x."""

    def __init__(self, network: CaloINN) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map `(batch, dimension)` and `(batch, 1)` to nats `(batch,)`."""
        return self.network.negative_log_likelihood(x, condition)
