"""CaloINN's network: coupling blocks between normalised showers and a normal latent space."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bitsearch.models.caloinn.coupling import CouplingBlock, Subnet
from bitsearch.models.leaves.splines import SPLINES, OutOfBounds

LOG_OFFSET = 1e-8
LARGEST_LOG = 30.0
OUTER_BLOCKS = 2
ACTIVATIONS: Mapping[str, type[nn.Module]] = {"silu": nn.SiLU, "leaky-relu": nn.LeakyReLU}


@dataclass(frozen=True)
class Architecture:
    """Sizes and choices of one CaloINN; `linears` counts the linear layers of a subnet."""

    boundaries: tuple[int, ...]
    blocks: int
    linears: int
    hidden: int
    spline: str
    bins: int
    bound: float
    normalization: bool
    activation: str
    noise: float
    out_of_bounds: OutOfBounds

    @property
    def layers(self) -> int:
        """Number of calorimeter layers."""
        return len(self.boundaries) - 1

    @property
    def dimension(self) -> int:
        """Voxels and one energy ratio a layer."""
        return self.boundaries[-1] + self.layers


class CaloINN(nn.Module):
    """Flow between normalised showers with energy ratios, `(batch, dimension)`, and a normal latent space.

    The first and last two blocks either permute at random like all others or exchange the halves, without an
    ActNorm in front (`exchange`). The condition `(batch, 1)` is log10 of the incident energy in GeV.
    """

    def __init__(self, architecture: Architecture, permutation: str = "random", seed: int = 0) -> None:
        super().__init__()
        self.architecture = architecture
        generator = torch.Generator().manual_seed(seed)
        blocks = [
            self._block(index, permutation == "exchange", generator) for index in range(architecture.blocks)
        ]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Map showers to the latent space; the log-determinant `(batch,)` is that of ln x, as published."""
        v = torch.log(x + LOG_OFFSET)
        log_det = v.new_zeros(())
        for block in self._couplings:
            v, block_log_det = block(v, condition)
            log_det = log_det + block_log_det
        return v, log_det

    def inverse(self, z: Tensor, condition: Tensor) -> Tensor:
        """Map latent vectors to showers; ln x is capped at 30, far above any normalised shower, to stay finite."""
        for block in reversed(self._couplings):
            z = block.inverse(z, condition)
        # Both bounds: onnx's reference evaluator confuses an omitted input with the splines' omitted output.
        return torch.exp(z.clamp(-math.inf, LARGEST_LOG)) - LOG_OFFSET

    def negative_log_likelihood(self, x: Tensor, condition: Tensor) -> Tensor:
        """Give -ln p(ln x | condition) of every event in nats, `(batch,)`."""
        z, log_det = self.forward(x, condition)
        return 0.5 * z.square().sum(1) - log_det + 0.5 * z.shape[1] * math.log(2 * math.pi)

    @torch.no_grad()
    def initialize(self, x: Tensor, condition: Tensor) -> None:
        """Set every ActNorm so that this batch has mean 0 and standard deviation 1 behind it."""
        training = self.training
        self.eval()
        v = torch.log(x + LOG_OFFSET)
        for block in self._couplings:
            if block.actnorm is not None:
                block.actnorm.initialize(v)
            v, _ = block(v, condition)
        self.train(training)

    @property
    def _couplings(self) -> list[CouplingBlock]:
        return [block for block in self.blocks if isinstance(block, CouplingBlock)]

    def _block(self, index: int, exchange: bool, generator: torch.Generator) -> CouplingBlock:
        a = self.architecture
        outer = exchange and not OUTER_BLOCKS <= index < a.blocks - OUTER_BLOCKS
        transformed = a.dimension // 2
        passive = a.dimension - transformed
        order = torch.arange(a.dimension)
        sizes = [
            passive + 1,
            *[a.hidden] * (a.linears - 1),
            transformed * SPLINES[a.spline].parameters(a.bins),
        ]
        return CouplingBlock(
            Subnet(sizes, a.normalization, ACTIVATIONS[a.activation]),
            order.roll(-passive) if outer else torch.randperm(a.dimension, generator=generator),
            spline=a.spline,
            bins=a.bins,
            bound=a.bound,
            out_of_bounds=a.out_of_bounds,
            normalize=index > 0 and not outer,
        )
