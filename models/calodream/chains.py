"""Between columns of normalised showers and the latent space of flow matching (CaloDREAM's transformations)."""

import torch
from torch import Tensor, nn

from bitsearch.models.showers.normalization import OFFSET, layer_energies

RESPONSE_SCALE = 0.35
MARGIN = 1e-6
SMALLEST_SHARE = 1e-7
LOG10_RANGE = 3.0  # 1 GeV to 1 TeV
ROWS = 1000


class Standardization(nn.Module):
    """Logit of every column, then zero mean and unit spread over the training data.

    Columns are the voxels as shares of their layer, then the energy ratios u; u_0 is first multiplied by 0.35.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, voxels: int, layers: int) -> None:
        super().__init__()
        self.voxels, self.layers = voxels, layers
        self.register_buffer("mean", torch.zeros(voxels + layers))
        self.register_buffer("std", torch.ones(voxels + layers))

    @torch.no_grad()
    def fit(self, columns: Tensor) -> None:
        """Take mean and standard deviation of `(events, voxels + layers)`; constant columns keep spread 1."""
        total = columns.new_zeros(columns.shape[1], dtype=torch.float64)
        squares = total.clone()
        for part in torch.split(columns, ROWS):
            y = self._logit(part).double()
            total, squares = total + y.sum(0), squares + y.square().sum(0)
        mean = total / len(columns)
        variance = (squares - len(columns) * mean.square()) / (len(columns) - 1)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(variance > 1e-8, variance.clamp_min(0).sqrt(), 1.0))

    def forward(self, columns: Tensor) -> Tensor:
        """Map columns `(events, voxels + layers)` to the latent space."""
        return (self._logit(columns) - self.mean) / self.std

    def invert(self, latent: Tensor) -> Tensor:
        """Map latent vectors back to columns; rounding may leave shares a little below 0."""
        y = latent * self.std + self.mean
        return self._scaled((torch.sigmoid(y) - MARGIN) / (1 - 2 * MARGIN), 1 / RESPONSE_SCALE)

    def _logit(self, columns: Tensor) -> Tensor:
        return torch.logit(self._scaled(columns, RESPONSE_SCALE) * (1 - 2 * MARGIN) + MARGIN)

    def _scaled(self, columns: Tensor, factor: float) -> Tensor:
        voxels, response, ratios = torch.split(columns, [self.voxels, 1, self.layers - 1], 1)
        return torch.cat([voxels, factor * response, ratios], 1)


class Postprocessing(nn.Module):
    """Columns back to voxel energies in MeV, with the cuts of the published sampler."""

    def __init__(self, layers: int, threshold_mev: float) -> None:
        super().__init__()
        self.layers = layers
        self.threshold_mev = threshold_mev

    def forward(self, columns: Tensor, incident_mev: Tensor) -> Tensor:
        """Map `(batch, voxels + layers)` and `(batch, 1)` to `(batch, voxels)`.

        Shares up to 1e-7 of a layer become 0, and voxels below the readout threshold.
        """
        voxels, ratios = torch.split(columns, [columns.shape[1] - self.layers, self.layers], 1)
        grid = voxels.clamp_min(0).reshape(voxels.shape[0], self.layers, -1)
        shares = grid / (grid.sum(2, keepdim=True) + OFFSET)
        shares = torch.where(shares > SMALLEST_SHARE, shares, 0.0)
        energies = torch.cat(layer_energies(incident_mev * ratios[:, :1], ratios[:, 1:].clamp(0, 1)), 1)
        showers = (shares * energies.unsqueeze(2)).flatten(1)
        return torch.where(showers < self.threshold_mev, 0.0, showers)
