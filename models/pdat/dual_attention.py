"""P-DAT's two attentions (He and Wang, 2023): between particles, biased by pairs, and between channels."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bitsearch.models.leaves import PairByPair
from bitsearch.models.pdat.edge_convolution import Pointwise
from bitsearch.models.pdat.pair_features import JET_QUANTITIES, PAIR_FEATURES, Pairs

FORBIDDEN = -1e9
ChannelLayout = Literal["transpose", "as_coded"]


class _Attention(nn.Module):
    """What both attentions share: `n = norm1(h)` is attended, `A - n` goes on, and a block of two layers follows."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(width) for _ in range(4))
        self.query, self.key, self.value, self.fc1, self.fc2 = (nn.Linear(width, width) for _ in range(5))
        self.drop = nn.Dropout(dropout)

    def _finish(self, h: Tensor, u: Tensor) -> Tensor:
        """Add the attended features to `h` and apply the two layers."""
        u = self.norm2(self.drop(u))
        residual = u + h
        v = self.norm3(residual)
        v = self.drop(functional.gelu(self.fc1(v)))
        v = self.drop(self.fc2(self.norm4(v)))
        out: Tensor = v + residual
        return out


class ParticleAttention(_Attention):
    """Attention between particles; each head adds a bias computed from the features of every pair."""

    def __init__(
        self, width: int, heads: int, pair_widths: tuple[int, ...], dropout: float, pair_dropout: float
    ) -> None:
        super().__init__(width, dropout)
        self.heads = heads
        self.fcx = nn.Linear(width, width)
        self.pairs = PairByPair()
        self.bias_net = Pointwise((PAIR_FEATURES, *pair_widths, heads), bias=True, dropout=pair_dropout)

    def bias(self, features: Tensor, pairs: Pairs, filled: Tensor, real: Tensor | None) -> Tensor:
        """Turn the features of pairs `(batch, pairs, 6)` into scores `(batch, heads, particles, particles)`.

        Scores of empty slots, as the second particle, forbid to attend to them.
        """
        first, second, entries = (x.to(features.device) for x in (pairs.first, pairs.second, pairs.entries))
        both = None if real is None else real.index_select(1, first) & real.index_select(1, second)
        bias: Tensor = self.pairs(self.bias_net, features, entries, filled, both).permute(0, 3, 1, 2)
        return bias if real is None else bias.masked_fill(~real[:, None, None], FORBIDDEN)

    def forward(self, h: Tensor, bias: Tensor) -> Tensor:
        """Map `(batch, particles, width)` to the same shape; particles attend where the bias allows it."""
        n = self.norm1(h)
        q, k, v = (self._heads(layer(n)) for layer in (self.query, self.key, self.value))
        scale = 1 / math.sqrt(self.width // self.heads)
        attended = torch.softmax((q * scale) @ k.transpose(2, 3) + bias, 3) @ v
        attended = attended.transpose(1, 2).reshape(h.shape)
        return self._finish(h, functional.gelu(self.fcx(attended - n)))

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1, self.heads, self.width // self.heads).transpose(1, 2)


class ChannelAttention(_Attention):
    """Attention between channels, biased by ratios of jet quantities.

    Layout `as_coded` reads the `(particles, width)` numbers of Q, K and V row by row as `(width, particles)`, which
    mixes particles and channels, and transposes the result; `transpose` is attention between channels.
    `legacy_dead` adds the layers of an earlier form that the published network holds and never calls.
    """

    LEGACY = ("fcx", "bn", "bn1", "bn2", "bn3")

    def __init__(
        self,
        width: int,
        particles: int,
        layout: ChannelLayout,
        dropout: float,
        bias_dropout: float,
        legacy_dead: bool,
    ) -> None:
        super().__init__(width, dropout)
        self.particles, self.layout = particles, layout
        self.bias_drop = nn.Dropout(bias_dropout)
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(1, 1, 3, padding=1) for _ in range(3))
        if legacy_dead:
            self.fcx = nn.Linear(width, width**2)
            self.bn = nn.BatchNorm1d(width)
            self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(1) for _ in range(3))

    def bias(self, jet: Tensor) -> Tensor:
        """Turn the jet matrix `(batch, 11, 11)` into scores `(batch, width, width)`: stretched, then convolved."""
        stretch = _interpolation(self.width).to(jet)
        x = stretch @ jet @ stretch.T
        for convolution in (self.conv1, self.conv2, self.conv3):
            x = self.bias_drop(functional.gelu(_convolved(x, convolution)))
        return x

    def forward(self, h: Tensor, bias: Tensor, real: Tensor | None) -> Tensor:
        """Map `(batch, particles, width)` to the same shape; empty slots take no part."""
        n = self.norm1(h)
        q, k, v = (self._channels(layer(n)) for layer in (self.query, self.key, self.value))
        if real is not None:
            k = k * real[:, None].to(k.dtype)
        scores = (q * (1 / math.sqrt(self.width))) @ k.transpose(1, 2) + bias
        attended = (torch.softmax(scores, 2) @ v).transpose(1, 2)
        return self._finish(h, attended - n)

    def _channels(self, x: Tensor) -> Tensor:
        if self.layout == "as_coded":
            return x.reshape(-1, self.width, self.particles)
        return x.transpose(1, 2)


def _convolved(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Convolve images `(batch, height, width)` of one channel with a 3x3 kernel.

    Training adds up nine shifted images: torch takes eight times as long for a single channel's gradients.
    """
    if not convolution.training or convolution.bias is None:
        convolved: Tensor = convolution(x[:, None])
        return convolved[:, 0]
    height, width = x.shape[1:]
    padded = functional.pad(x, (1, 1, 1, 1))
    y = convolution.bias.expand_as(x)
    for place, weight in enumerate(convolution.weight.flatten().unbind()):
        row, column = divmod(place, 3)
        y = torch.addcmul(y, padded[:, row : row + height, column : column + width], weight)
    return y


def _interpolation(width: int) -> Tensor:
    """Give the matrix `(width, 11)` of linear interpolation between 11 places, half-pixel centres."""
    places = ((torch.arange(width) + 0.5) * JET_QUANTITIES / width - 0.5).clamp(0, JET_QUANTITIES - 1)
    return (1 - (places[:, None] - torch.arange(JET_QUANTITIES)).abs()).clamp_min(0)
