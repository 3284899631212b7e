"""What of SMEFTNet is exported: the angle."""

from torch import Tensor, nn

from bitsearch.models.smeftnet.network import SMEFTNet


class Angle(nn.Module):
    """The served graph: particles about the jet axis to the angle of the decay plane, defined up to multiples of π."""

    def __init__(self, network: SMEFTNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, pt: Tensor, theta: Tensor, phi: Tensor, jet_pt: Tensor) -> Tensor:
        """Map `(batch, particles)` three times and `(batch, 1)`, in GeV and radians, to radians `(batch,)`."""
        angle: Tensor = self.network(pt, theta, phi, jet_pt)[0]
        return angle
