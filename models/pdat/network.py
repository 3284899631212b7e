"""P-DAT's network: edge convolutions, two attentions, each used twice, and a pooled classifier."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bitsearch.models.leaves import RowByRow
from bitsearch.models.pdat.dual_attention import ChannelAttention, ChannelLayout, ParticleAttention
from bitsearch.models.pdat.edge_convolution import (
    FeatureConvolution,
    FeatureNeighbours,
    SpaceConvolution,
)
from bitsearch.models.pdat.pair_features import NEIGHBOUR_FEATURES, Convention, Inputs, Pairs

Loss = Literal["logits", "double_softmax"]


@dataclass(frozen=True)
class Architecture:
    """Sizes and choices of one P-DAT; the published choices are named at each.

    particles: leading constituents that are looked at (100), of at most `slots` that the served graph takes.
    neighbours: nearest in space, itself included (21); `feature_neighbours`: nearest in feature space (20).
    edge_width, width: features behind the first and the second edge convolution (128, 64).
    heads, pair_widths: heads of the particle attention (8) and widths of their bias net (32, 16).
    dropout, head_dropout: (0.1, 0.5); pair_dropout: in the bias nets of the attentions (0.1).
    mask: empty slots take no part in attention, means and batch statistics (False: they all do).
    edgeconv2: neighbours of the second edge convolution by `knn`, or none as the published code has it.
    layout: of the channel attention's Q, K, V; see `ChannelAttention`.
    preparation: azimuths `wrapped`, or treated `as_coded`; see `Preparation`.
    loss: cross entropy of `logits`, or of the softmax's output (`double_softmax`), as in the published code.
    legacy_dead: hold the layers that the published network holds and never calls.
    unordered_pairs: compute the bias of each pair once (False: of (a, b) and of (b, a), which is the same).
    shared_bias: compute the attentions' biases once (False: in training at each use, which draws other dropouts).
    """

    particles: int
    neighbours: int
    feature_neighbours: int
    edge_width: int
    width: int
    heads: int
    pair_widths: tuple[int, ...]
    slots: int
    dropout: float = 0.1
    pair_dropout: float = 0.1
    head_dropout: float = 0.5
    mask: bool = True
    edgeconv2: FeatureNeighbours = "knn"
    layout: ChannelLayout = "transpose"
    preparation: Convention = "wrapped"
    loss: Loss = "logits"
    legacy_dead: bool = False
    unordered_pairs: bool = True
    shared_bias: bool = True


class PDAT(nn.Module):
    """Edge convolutions, then a particle and a channel attention, each used twice, then a pooled classifier.

    Submodules in `never_run` exist because the published network holds them.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.pairs = Pairs.of(a.particles, a.unordered_pairs)
        self.rows = RowByRow()
        self.edge1 = SpaceConvolution((NEIGHBOUR_FEATURES, *[a.edge_width] * 3))
        self.edge2 = FeatureConvolution((a.edge_width, *[a.width] * 3), a.feature_neighbours, a.edgeconv2)
        self.particle = ParticleAttention(a.width, a.heads, a.pair_widths, a.dropout, a.pair_dropout)
        self.channel = ChannelAttention(
            a.width, a.particles, a.layout, a.dropout, a.pair_dropout, a.legacy_dead
        )
        self.pooled = nn.Linear(5 * a.width, 4 * a.width)
        self.head = nn.Sequential(
            nn.Linear(4 * a.width, 2 * a.width),
            nn.BatchNorm1d(2 * a.width),
            nn.GELU(),
            nn.Dropout(a.head_dropout),
            nn.Linear(2 * a.width, 2),
        )
        self.never_run: tuple[str, ...] = ()
        if a.legacy_dead:
            self.linear = nn.Linear(4 * a.width, a.width)
            self.bn = nn.BatchNorm1d(a.width)
            self.never_run = ("linear", "bn", *(f"channel.{name}" for name in ChannelAttention.LEGACY))

    def forward(self, inputs: Inputs) -> Tensor:
        """Map what `Preparation` gives to the logits of gluon and quark, `(batch, 2)`."""
        real = inputs.real if self.architecture.mask else None
        filled = inputs.filled
        x = self.edge2(self.rows(self.edge1, inputs.neighbours, filled, real), filled, real)
        features = [x]
        pair_bias = jet_bias = None
        # Without dropout both uses compute the same.
        shared = self.architecture.shared_bias or not self.training
        for _ in range(2):
            if pair_bias is None or jet_bias is None or not shared:
                pair_bias = self.particle.bias(inputs.pairs, self.pairs, filled, real)
                jet_bias = self.channel.bias(inputs.jet)
            features.append(self.particle(features[-1], pair_bias))
            features.append(self.channel(features[-1], jet_bias, real))
        # The published pointwise layer comes before the mean; it is linear, so this is the same, cheaper.
        logits: Tensor = self.head(self.pooled(_mean(torch.cat(features, 2), real)))
        return logits


def _mean(x: Tensor, real: Tensor | None) -> Tensor:
    """Average over particles `(batch, particles, width)`, over the real ones where they are told."""
    if real is None:
        return x.mean(1)
    weight = real.to(x.dtype)
    return (weight[:, None] @ x)[:, 0] / weight.sum(1, keepdim=True).clamp_min(1)
