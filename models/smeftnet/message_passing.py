"""One layer of message passing, which also turns the particles (SMEFTNet, Chatterjee et al., 2024)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bitsearch.models.leaves import MessagePassing, Perceptron, Style


class Convolution(nn.Module):
    """One layer of message passing over the graph of particles that are closer than `radius`.

    The mean of the messages to i gives its new features and the angle, in full turns, by which its position is
    rotated.
    """

    def __init__(
        self, features: int, sizes: Sequence[int], style: Style, radius: float, weighted: bool
    ) -> None:
        super().__init__()
        self.mlp = Perceptron([3 * features + 2, *sizes[:-1], sizes[-1] + 1], style)
        self.messages = MessagePassing(radius, weighted)

    def forward(self, pt: Tensor, features: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Update `features` `(batch, particles, size)` and `position` `(batch, particles, 2)`."""
        pooled = self.messages(pt, features, position, self.mlp)
        return pooled[..., :-1], rotate(position, 2 * math.pi * pooled[..., -1:])


def length(vector: Tensor) -> Tensor:
    """Give |v| of `(..., 2)` as `(..., 1)`; its gradient at zero is zero."""
    squared = vector.square().sum(-1, keepdim=True)
    zero = squared == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squared).sqrt())


def rotate(vector: Tensor, angle: Tensor) -> Tensor:
    """Rotate `(..., 2)` counterclockwise by `(..., 1)` radians."""
    x, y = vector[..., :1], vector[..., 1:]
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.cat([x * cos - y * sin, x * sin + y * cos], -1)
