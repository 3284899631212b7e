"""Time a quantisation-aware training step against the same step in float, side by side in one run.

    .venv/bin/python benchmarks/training_step.py [--width 256] [--batch 512] [--layers 4]

Forward, backward and nothing else of a stack of square linear layers; the outputs of the quantised stack are first
checked against the operator's numpy reference. The steps take turns; the table gives minima and medians over all
rounds, and their ratios.
"""

import argparse
import platform
import statistics
import time

import numpy as np
import torch
from torch import nn

from bitsearch.core.assignment import Assignment
from bitsearch.core.precision import Precision
from bitsearch.core.rounding import Rounding
from bitsearch.network import quant
from bitsearch.ops import reference

CONTENDERS: dict[str, tuple[Precision, Rounding]] = {
    "float32": (Precision.FLOAT32, Rounding.PAPER),
    **{f"ternary {kind}": (Precision.TERNARY, kind) for kind in Rounding},
    "binary paper": (Precision.BINARY, Rounding.PAPER),
}


def stack(width: int, layers: int, precision: Precision, rounding: Rounding) -> nn.Module:
    """Build `layers` square linear layers of one precision and rounding."""
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))
    names = [name for name, _ in quant.linear_layers(network)]
    return quant.apply(
        network, Assignment.of(names, names, precision), rounding=dict.fromkeys(names, rounding)
    )


def verify(network: nn.Module, x: torch.Tensor) -> None:
    """Hold the first layer to the numpy reference, bit for bit."""
    layer = network[0]  # type: ignore[index]
    if not isinstance(layer, quant.BitLinear):
        return
    codes, scale = quant.round_rows(layer.weight.detach(), layer.rounding, layer.precision)
    packed = reference.pack(codes.numpy().astype(np.int8))
    expected = reference.ternary_matmul(
        x.numpy(), packed, scale.numpy(), layer.bias.detach().numpy(), K=layer.in_features
    )
    np.testing.assert_array_equal(layer(x).detach().numpy(), expected)


def step(network: nn.Module, x: torch.Tensor) -> float:
    """Run one forward and backward pass and give its wall time in seconds."""
    begin = time.perf_counter()
    network(x).square().mean().backward()
    return time.perf_counter() - begin


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    networks = {name: stack(arguments.width, arguments.layers, *kind) for name, kind in CONTENDERS.items()}
    x = torch.randn(arguments.batch, arguments.width, requires_grad=False)
    for network in networks.values():
        verify(network, x)
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(arguments.rounds):
        for name, network in networks.items():
            times[name].append(step(network, x) * 1e6)
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    print(
        f"{arguments.layers} layers {arguments.width} x {arguments.width}, batch {arguments.batch}, step in µs"
    )
    print(f"{'':17}{'minimum':>10}{'median':>10}{'x float (min)':>15}{'x float (median)':>18}")
    base = times["float32"]
    for name, values in times.items():
        low, middle = min(values), statistics.median(values)
        print(
            f"{name:17}{low:10.0f}{middle:10.0f}{low / min(base):15.2f}{middle / statistics.median(base):18.2f}"
        )


if __name__ == "__main__":
    main()
