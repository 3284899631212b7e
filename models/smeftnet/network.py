"""SMEFTNet's network: message passing between particles, then a readout of the decay plane's angle."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bitsearch.models.leaves.messages import SMALLEST_WEIGHT, Perceptron, Style
from bitsearch.models.smeftnet.message_passing import Convolution, length

# Edge layers of the published class, and those that the published launch script asks for.
CLASS_DEFAULT = ((10, 10), (10, 10))
LAUNCH_SCRIPT = ((20, 20), (20, 20))
# As published, low-bit blocks also have another activation, and edge networks lose their normalisation.
EDGE_STYLES = {"float": Style(True, "relu"), "bit": Style(False, "leaky-relu")}
READOUT_STYLES = {"float": Style(True, "relu"), "bit": Style(True, "leaky-relu")}


@dataclass(frozen=True)
class Architecture:
    """Sizes and choices of one SMEFTNet; the defaults are the sound form.

    `coords`: particles lie at Θ(cos φ, sin φ), or, as the published code has it, at (Θ, φ), whose rotation has no
    meaning. `edge_weight`: messages are averaged with the transverse momenta of their senders, or, as the published
    code has it, uniformly. `scalar` and `vector_to_readout` feed the jet's transverse momentum and the pooled vector
    to the readout.
    """

    particles: int = 40
    coords: Literal["cartesian", "polar_as_coded"] = "cartesian"
    edge_weight: Literal["pt", "uniform_as_coded"] = "pt"
    convolutions: tuple[tuple[int, ...], ...] = CLASS_DEFAULT
    readout: tuple[int, ...] = (32, 32)
    radius: float = 0.4
    edge_style: Style = EDGE_STYLES["float"]
    readout_style: Style = READOUT_STYLES["float"]
    scalar: bool = True
    vector_to_readout: bool = True


class SMEFTNet(nn.Module):
    """Particles of a jet to an angle, an unbounded real in radians, and a vector that rotates with the particles."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        features = [1, *(sizes[-1] for sizes in a.convolutions)]
        self.convolutions = nn.ModuleList(
            Convolution(size, sizes, a.edge_style, a.radius, a.edge_weight == "pt")
            for size, sizes in zip(features, a.convolutions, strict=False)
        )
        self.scalar_norm = nn.BatchNorm1d(1) if a.scalar else None
        pooled = a.scalar + features[-1] + 2 * a.vector_to_readout
        self.readout = Perceptron([pooled, *a.readout, 1], a.readout_style)

    def forward(self, pt: Tensor, theta: Tensor, phi: Tensor, jet_pt: Tensor) -> tuple[Tensor, Tensor]:
        """Map `(batch, particles)` three times and `(batch, 1)`, in GeV and radians, to `(batch,)` and `(batch, 2)`.

        There is no particle where `pt` is 0.
        """
        position = self.position(theta, phi)
        features = length(position)
        for convolution in self.convolutions:
            features, position = convolution(pt, features, position)
        weights = pt / pt.sum(1, keepdim=True).clamp_min(SMALLEST_WEIGHT)
        pooled = (weights[..., None] * torch.cat([features, position], -1)).sum(1)
        vector = pooled[:, -2:]
        inputs = pooled if self.architecture.vector_to_readout else pooled[:, :-2]
        if self.scalar_norm is not None:
            inputs = torch.cat([self.scalar_norm(jet_pt), inputs], -1)
        return self.readout(inputs)[:, 0], vector

    def position(self, theta: Tensor, phi: Tensor) -> Tensor:
        """Place the particles in the plane, `(batch, particles, 2)`."""
        if self.architecture.coords == "cartesian":
            return torch.stack([theta * torch.cos(phi), theta * torch.sin(phi)], -1)
        return torch.stack([theta, phi], -1)
