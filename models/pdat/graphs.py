"""What of P-DAT is exported: the classifier of raw constituents."""

import torch
from torch import Tensor, nn

from bitsearch.models.pdat.network import PDAT, Architecture
from bitsearch.models.pdat.pair_features import Preparation


class Classifier(nn.Module):
    """The served graph: constituents of jets to the probability that a quark made them."""

    def __init__(self, network: PDAT) -> None:
        super().__init__()
        self.network = network
        self.preparation = preparation(network.architecture)

    def forward(self, pt: Tensor, eta: Tensor, phi: Tensor, pdg_id: Tensor) -> Tensor:
        """Map pT in GeV, rapidity, azimuth in rad and PDG id, `(batch, slots)` each, to `(batch,)`."""
        logits = self.network(self.preparation(pt, eta, phi, pdg_id))
        return torch.softmax(logits, 1)[:, 1]


def preparation(architecture: Architecture) -> Preparation:
    """Set up what turns constituents into a network's inputs."""
    a = architecture
    return Preparation(a.particles, a.neighbours, a.preparation, a.unordered_pairs)
