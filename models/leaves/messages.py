"""Message passing between the particles of a jet, in dense padded form (SMEFTNet, Chatterjee et al., 2024).

Everything is real arithmetic on tensors padded to a fixed number of particles, so that it exports; in training the
real edges are gathered first, so that batch normalisation sees no others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

SMALLEST_WEIGHT = 1e-12
ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "leaky-relu": nn.LeakyReLU}


@dataclass(frozen=True)
class Style:
    """What stands between the linear layers of a block."""

    normalization: bool
    activation: str


class Perceptron(nn.Module):
    """Linear layers of the given sizes with normalisation and activation between them, on rows `(rows, size)`."""

    def __init__(self, sizes: Sequence[int], style: Style) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        hidden = sizes[1:-1] if style.normalization else ()
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in hidden)
        self.activation = ACTIVATIONS[style.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(rows, first size)` to `(rows, last size)`."""
        last = len(self.linears) - 1
        for index, linear in enumerate(self.linears):
            x = linear(x)
            if index < last:
                x = self.activation(self.norms[index](x) if self.norms else x)
        return x


class MessagePassing(nn.Module):
    """Average what the neighbours of each particle, itself included, tell it.

    Neighbours are closer than `radius`. The message of j to i is computed from (h_i, h_j, h_j - h_i, cos, sin of the
    difference of their azimuths).
    """

    def __init__(self, radius: float, weighted: bool) -> None:
        super().__init__()
        self.radius, self.weighted = radius, weighted

    def forward(self, pt: Tensor, features: Tensor, position: Tensor, mlp: Perceptron) -> Tensor:
        """Map `(batch, particles)`, `(batch, particles, size)` and `(batch, particles, 2)` to means of messages.

        `mlp` maps rows `(rows, 3 size + 2)` to messages; the means are `(batch, particles, messages)`.
        """
        edges, weights = self.graph(pt, position)
        nodes = torch.cat([features, unit(position)], -1)
        pool = self._pool_listed if mlp.training else self._pool_dense
        return pool(nodes, edges, weights, mlp)

    @torch.no_grad()
    def graph(self, pt: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Give the adjacency and the share that i takes of the message of j, both `(batch, i, j)`.

        `pt` is 0 where there is no particle. With `weighted`, the shares follow the transverse momenta of the
        senders, so that soft and collinear particles change nothing; without, they are equal.
        """
        real = pt != 0
        distance = (position[:, :, None] - position[:, None]).square().sum(-1)
        edges = real[:, :, None] & real[:, None] & (distance <= self.radius**2)
        weights = edges * pt[:, None] if self.weighted else edges.to(pt.dtype)
        return edges, weights / weights.sum(-1, keepdim=True).clamp_min(SMALLEST_WEIGHT)

    def _pool_dense(self, nodes: Tensor, edges: Tensor, weights: Tensor, mlp: Perceptron) -> Tensor:
        """Compute the messages of all pairs and average those of the edges."""
        particles = nodes.shape[1]
        receiver = nodes[:, :, None].expand(-1, -1, particles, -1)
        sender = nodes[:, None].expand(-1, particles, -1, -1)
        rows = edge_input(receiver, sender).flatten(0, 2)
        messages: Tensor = mlp(rows).unflatten(0, (-1, particles, particles))
        return (weights[..., None] * messages).sum(2)

    def _pool_listed(self, nodes: Tensor, edges: Tensor, weights: Tensor, mlp: Perceptron) -> Tensor:
        """Compute the messages of the edges alone."""
        jet, i, j = edges.nonzero(as_tuple=True)
        particles = nodes.shape[1]
        receiver, sender = jet * particles + i, jet * particles + j
        rows = nodes.flatten(0, 1)
        messages: Tensor = mlp(edge_input(rows.index_select(0, receiver), rows.index_select(0, sender)))
        pooled = messages.new_zeros(len(rows), messages.shape[1])
        pooled = pooled.index_add(0, receiver, weights[jet, i, j, None] * messages)
        return pooled.reshape(-1, particles, pooled.shape[1])


def edge_input(receiver: Tensor, sender: Tensor) -> Tensor:
    """Turn nodes `(..., features + 2)`, directions last, at both ends of edges into rows `(..., 3 features + 2)`."""
    h_i, u_i = receiver[..., :-2], receiver[..., -2:]
    h_j, u_j = sender[..., :-2], sender[..., -2:]
    cos = (u_i * u_j).sum(-1, keepdim=True)
    sin = u_i[..., 1:] * u_j[..., :1] - u_i[..., :1] * u_j[..., 1:]
    return torch.cat([h_i, h_j, h_j - h_i, cos, sin], -1)


def unit(vector: Tensor) -> Tensor:
    """Give v/|v| of `(..., 2)`; zero, which has no direction, stays zero."""
    squared = vector.square().sum(-1, keepdim=True)
    return vector / torch.where(squared == 0, 1.0, squared).sqrt()
