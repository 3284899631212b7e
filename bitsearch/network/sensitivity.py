"""How much each group of layers would suffer from quantisation, told from gradients alone."""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from bitsearch.core.seeds import derive
from bitsearch.core.space import SearchSpace
from bitsearch.core.task import Data, Progress, Task
from bitsearch.network import quant

BATCHES = 8


def fisher(
    network: nn.Module,
    task: Task,
    data: Data,
    space: SearchSpace,
    seed: int,
    progress: Progress = lambda _text, _share: None,
) -> Mapping[str, float]:
    """Score every group by its expected loss increase, ½ Σ g² ΔW², in units of the loss.

    g² is the diagonal of the empirical Fisher matrix, averaged over batches, and ΔW what rounding changes.
    """
    network = copy.deepcopy(network).eval()
    device = str(next(network.parameters()).device)
    data = data.to(device)
    layers = dict(quant.linear_layers(network))
    squares = {name: torch.zeros_like(layer.weight) for name, layer in layers.items()}
    size = min(stage.batch_size for stage in task.recipes.candidate.stages)
    for batch in range(BATCHES):
        generator = torch.Generator(device).manual_seed(derive(seed, batch))
        indices = torch.randint(
            data.events, (size,), generator=torch.Generator().manual_seed(derive(seed, batch))
        )
        network.zero_grad()
        task.loss(network, data, indices.to(device), generator).backward()  # type: ignore[no-untyped-call]
        for name, layer in layers.items():
            if layer.weight.grad is not None:
                squares[name] += layer.weight.grad.square() * (size / BATCHES)
        progress("layer sensitivities", (batch + 1) / BATCHES)
    rounding = task.recipes.roundings(layers)
    scores = {}
    for name, layer in layers.items():
        weight = layer.weight.detach()
        codes, scale = quant.round_rows(weight, rounding[name], space.precision)
        change = codes * scale[..., None] - weight
        scores[name] = 0.5 * float((squares[name] * change.square()).sum())
    return {group.name: sum(scores[name] for name in group.layers) for group in space.groups}
