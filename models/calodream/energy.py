"""The energy network of CaloDREAM: layer energies one after the other, each by flow matching (Favaro et al., 2024)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bitsearch.models.calodream.attention import LoneAttention, SelfAttention
from bitsearch.models.calodream.solver import Solver

TIME_SCALE = 30.0


@dataclass(frozen=True)
class EnergySizes:
    """Sizes of the energy network and its solver; `linears` counts the linear layers of the velocity."""

    width: int
    heads: int
    stack: int
    feed_forward: int
    time: int
    hidden: int
    linears: int
    solver: Solver


class EnergyNetwork(nn.Module):
    """Velocity of the energy ratios u of `layers` layers, given the incident energy and the layers before.

    A transformer reads the scaled incident energy and the ratios so far; row i of its context depends on
    u_0 to u_(i-1). A perceptron maps (x, time, context) to the velocity of one ratio.
    """

    frequencies: Tensor

    def __init__(self, layers: int, sizes: EnergySizes) -> None:
        super().__init__()
        width = sizes.width
        self.layers = layers
        self.width = width
        self.encoder = nn.ModuleList(EncoderLayer(width, sizes.feed_forward) for _ in range(sizes.stack))
        self.encoder_norm = nn.LayerNorm(width)
        self.decoder = nn.ModuleList(
            DecoderLayer(width, sizes.heads, sizes.feed_forward) for _ in range(sizes.stack)
        )
        self.decoder_norm = nn.LayerNorm(width)
        self.register_buffer("frequencies", TIME_SCALE * torch.randn(sizes.time // 2))
        self.time = nn.Linear(sizes.time, sizes.time)
        self.velocity = Velocity(1 + sizes.time + width, sizes.hidden, sizes.linears)
        self._initialize()

    def forward(self, condition: Tensor, values: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Give velocities `(batch, layers)` of `x` at times `t`, each layer knowing the true `values` before it."""
        context = self.decode(self.encode(condition), values)
        return self.move(x.unsqueeze(2), self.embed_time(t.unsqueeze(2)), context).squeeze(2)

    def encode(self, condition: Tensor) -> Tensor:
        """Turn the scaled energy `(batch, 1)` into the memory `(batch, 1, width)`."""
        memory = self._tokens(condition)
        for layer in self.encoder:
            memory = layer(memory)
        normalized: Tensor = self.encoder_norm(memory)
        return normalized

    def decode(self, memory: Tensor, values: Tensor) -> Tensor:
        """Give the context `(batch, layers, width)`; row i depends on `values[:, :i]` alone."""
        tokens = self._tokens(functional.pad(values[:, :-1], (1, 0)))
        mask = torch.full((self.layers, self.layers), -math.inf, device=values.device).triu(1)
        for layer in self.decoder:
            tokens = layer(tokens, memory, mask)
        normalized: Tensor = self.decoder_norm(tokens)
        return normalized

    def embed_time(self, t: Tensor) -> Tensor:
        """Map times `(..., 1)` to `(..., time)`."""
        angle = 2 * math.pi * t * self.frequencies
        embedded: Tensor = self.time(torch.cat([angle.sin(), angle.cos()], -1))
        return embedded

    def move(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """Give the velocity `(..., 1)` of `x` `(..., 1)`."""
        v: Tensor = self.velocity(torch.cat([x, time, context], -1))
        return v

    def _tokens(self, values: Tensor) -> Tensor:
        """Write each value, its position as one-hot and zeros into a token."""
        one_hot = torch.eye(values.shape[1], self.width - 1, device=values.device)
        return torch.cat([values.unsqueeze(2), one_hot.expand(values.shape[0], -1, -1)], 2)

    def _initialize(self) -> None:
        """Start the transformer as torch's own does: Xavier for matrices, the three attention inputs as one."""
        for stack in (self.encoder, self.decoder):
            for name, parameter in stack.named_parameters():
                if parameter.dim() == 2:
                    nn.init.xavier_uniform_(parameter)
                    if name.endswith(("query.weight", "key.weight", "value.weight")):
                        nn.init.uniform_(parameter, *_symmetric(math.sqrt(6 / (4 * self.width))))
                elif name.endswith("bias") and "attention" in name:
                    nn.init.zeros_(parameter)


class EncoderLayer(nn.Module):
    """Transformer layer on one token, normalised behind each part."""

    def __init__(self, width: int, feed_forward: int) -> None:
        super().__init__()
        self.attention = LoneAttention(width)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, feed_forward)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, 1, width)`."""
        y: Tensor = self.feed_forward(self.attention_norm(x + self.attention(x)))
        return y


class DecoderLayer(nn.Module):
    """Transformer layer with attention to earlier tokens and to the memory, normalised behind each part."""

    def __init__(self, width: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.attention_norm = nn.LayerNorm(width)
        self.cross_attention = LoneAttention(width)
        self.cross_attention_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, feed_forward)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Map `(batch, tokens, width)`."""
        x = self.attention_norm(x + self.attention(x, mask))
        y: Tensor = self.feed_forward(self.cross_attention_norm(x + self.cross_attention(memory)))
        return y


class FeedForward(nn.Module):
    """Two linear layers round a ReLU, added to their input and normalised."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, hidden)
        self.second = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., width)`."""
        y: Tensor = self.norm(x + self.second(torch.relu(self.first(x))))
        return y


class Velocity(nn.Module):
    """Perceptron with `linears` linear layers, the central ones normalised, and SiLU between them."""

    def __init__(self, inputs: int, hidden: int, linears: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.central = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(linears - 2))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(linears - 2))
        self.last = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., inputs)` to `(..., 1)`."""
        x = functional.silu(self.first(x))
        for linear, norm in zip(self.central, self.norms, strict=True):
            x = functional.silu(norm(linear(x)))
        y: Tensor = self.last(x)
        return y


def _symmetric(bound: float) -> tuple[float, float]:
    return -bound, bound
