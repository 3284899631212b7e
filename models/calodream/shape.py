"""The shape network of CaloDREAM: a vision transformer on patches of voxels with adaptive normalisation."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bitsearch.models.calodream.attention import SelfAttention
from bitsearch.models.calodream.solver import Solver

LONGEST_PERIOD = 10_000.0
TIME_FREQUENCIES = 128
Triple = tuple[int, int, int]


@dataclass(frozen=True)
class ShapeSizes:
    """Sizes of the shape network and its solver; a patch spans layers, angles and radii."""

    patch: Triple
    width: int
    blocks: int
    heads: int
    ratio: int
    solver: Solver


class ShapeNetwork(nn.Module):
    """Velocity of all voxels of a shower `(batch, voxels)`, given time and condition `(batch, conditions)`.

    Voxels come in file order: layer slowest, radius fastest. Fresh networks return 0.
    """

    def __init__(self, grid: Triple, conditions: int, sizes: ShapeSizes) -> None:
        super().__init__()
        width, patch = sizes.width, sizes.patch
        self.patch = patch
        self.patches = tuple(n // size for n, size in zip(grid, patch, strict=True))
        self.embedding = nn.Linear(math.prod(patch), width)
        self.frequencies = nn.Parameter(torch.randn(width // 2))
        self.time = nn.Sequential(nn.Linear(2 * TIME_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.Sequential(nn.Linear(conditions, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, sizes.heads, sizes.ratio) for _ in range(sizes.blocks))
        self.final = Final(width, math.prod(patch))
        self._initialize()

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Give the velocity of `x` at times `t` `(batch, 1)`."""
        return self.move(x, self.embed_time(t) + self.condition(condition))

    def embed_time(self, t: Tensor) -> Tensor:
        """Map times `(n, 1)` to `(n, width)`."""
        exponents = torch.arange(TIME_FREQUENCIES, device=t.device) / TIME_FREQUENCIES
        angle = t * torch.exp(-math.log(LONGEST_PERIOD) * exponents)
        embedded: Tensor = self.time(torch.cat([angle.cos(), angle.sin()], 1))
        return embedded

    def move(self, x: Tensor, z: Tensor) -> Tensor:
        """Give the velocity of `x` where `z` `(batch, width)` holds time and condition."""
        z = functional.silu(z)
        tokens = self.embedding(self.to_tokens(x)) + self.positions()
        for block in self.blocks:
            tokens = block(tokens, z)
        return self.to_voxels(self.final(tokens, z))

    def positions(self) -> Tensor:
        """Give the position vectors `(tokens, width)`: sines and cosines of radius, angle and layer."""
        axes = [torch.arange(n, device=self.frequencies.device) / n for n in self.patches]
        coordinates = torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")])
        frequencies = 2 * math.pi * self.frequencies.reshape(3, -1)
        z, y, x = (coordinates.unsqueeze(2) * frequencies.unsqueeze(1)).unbind(0)
        return torch.cat([x.sin(), x.cos(), y.sin(), y.cos(), z.sin(), z.cos()], 1)

    def to_tokens(self, x: Tensor) -> Tensor:
        """Cut `(batch, voxels)` into patches `(batch, tokens, voxels of a patch)`."""
        (nl, na, nr), (pl, pa, pr) = self.patches, self.patch
        blocks = x.reshape(-1, nl, pl, na, pa, nr, pr).permute(0, 1, 3, 5, 2, 4, 6)
        return blocks.reshape(-1, nl * na * nr, pl * pa * pr)

    def to_voxels(self, tokens: Tensor) -> Tensor:
        """Invert `to_tokens`."""
        (nl, na, nr), (pl, pa, pr) = self.patches, self.patch
        blocks = tokens.reshape(-1, nl, na, nr, pl, pa, pr).permute(0, 1, 4, 2, 5, 3, 6)
        return blocks.reshape(-1, nl * na * nr * pl * pa * pr)

    def _initialize(self) -> None:
        """Start from Xavier's matrices; time enters weakly, gates are closed and the velocity is 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for linear in self.time:
            if isinstance(linear, nn.Linear):
                nn.init.normal_(linear.weight, std=0.02)
        for part in self.modules():
            if isinstance(part, Block | Final):
                nn.init.zeros_(part.modulation.weight)
        nn.init.zeros_(self.final.linear.weight)


class Block(nn.Module):
    """Attention and perceptron, each on modulated input and with a gated sum (adaLN-Zero)."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = SelfAttention(width, heads)
        self.fc1 = nn.Linear(width, ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Map `(batch, tokens, width)`; `z` `(batch, width)` steers."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(z).unsqueeze(1).chunk(6, 2)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1)
        hidden = functional.gelu(self.fc1(self.norm(x) * (1 + scale2) + shift2), approximate="tanh")
        y: Tensor = x + gate2 * self.fc2(hidden)
        return y


class Final(nn.Module):
    """Linear map of modulated tokens to the voxels of their patches."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(width, outputs)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Map `(batch, tokens, width)` to `(batch, tokens, outputs)`."""
        shift, scale = self.modulation(z).unsqueeze(1).chunk(2, 2)
        y: Tensor = self.linear(self.norm(x) * (1 + scale) + shift)
        return y
