"""Choose what to quantise from sensitivities alone: no training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.rundir import RunFolder
from bitsearch.core.space import Fractions, Group, Inventory
from bitsearch.core.task import Progress
from bitsearch.network import catalogue

STEPS = 4000  # the resolution of sizes: a solution may quantise 1/4000 more for each group than it had to


@dataclass(frozen=True)
class Suggestion:
    """An assignment, what it quantises, and the loss it is expected to add before any re-training."""

    assignment: Assignment
    fractions: Fractions
    loss_increase: float


def suggest(
    groups: Sequence[Group], inventory: Inventory, scores: Mapping[str, float], target: float
) -> Suggestion:
    """Choose the groups that add the least loss in sum and hold `target` of the parameters that run.

    Raises:
        ConfigurationError: no choice reaches the target.
    """
    check_target(target)
    everything = inventory.fractions(Assignment.of(inventory.names, inventory.names))
    if everything.executed_fraction < target:
        raise ConfigurationError(
            f"--target-fraction {target:g}: all linear layers together hold "
            f"{everything.executed_fraction:.4f} of the parameters; expected no more than that"
        )
    layers = {layer.name: layer for layer in inventory.layers}
    sizes = {
        group.name: sum(layers[name].parameters for name in group.layers if layers[name].executed)
        for group in groups
    }
    needed = target * inventory.executed_parameters
    chosen = _least([scores[group.name] for group in groups], [sizes[group.name] for group in groups], needed)
    quantized = [name for index in chosen for name in groups[index].layers]
    assignment = Assignment.of(inventory.names, quantized)
    return Suggestion(
        assignment,
        inventory.fractions(assignment),
        float(sum(scores[groups[index].name] for index in chosen)),
    )


def from_run(folder: Path, model: str, dataset: str | None, target: float) -> Suggestion:
    """Use the sensitivities that a run has computed.

    Raises:
        ConfigurationError: the folder holds no run of this model, or one that has not come that far.
    """
    manifest = RunFolder.open(folder).manifest()
    require_same(folder, manifest.model, manifest.dataset, model, dataset)
    scores = manifest.sensitivities
    if scores is None:
        raise ConfigurationError(
            f"the run in {folder} has not computed its sensitivities; continue it with `bitsearch run` first"
        )
    entry = catalogue.find(model)
    task = entry.task(manifest.dataset, manifest.preset)
    inventory = catalogue.inventory(task, entry.options_of_reference(task.preset))
    sizes = {layer.name: (layer.out_features, layer.in_features) for layer in manifest.layers}
    if sizes != {layer.name: (layer.out_features, layer.in_features) for layer in inventory.layers}:
        raise ConfigurationError(
            f"the run in {folder} was made with other layers than {model} has now; expected the same, run again"
        )
    if lacking := sorted({group.name for group in manifest.groups}.difference(scores)):
        raise ConfigurationError(
            f"the run in {folder} has no sensitivity of {', '.join(lacking)}; expected one for every group"
        )
    return suggest(manifest.groups, inventory, scores, target)


def from_checkpoint(
    path: Path,
    model: str,
    dataset: str | None,
    target: float,
    data: Sequence[Path],
    seed: int,
    progress: Progress,
) -> Suggestion:
    """Score the layers of a trained float network on data.

    Raises:
        CheckpointError: the file is no checkpoint.
        ConfigurationError: it is not ours, of another model, or already quantised.
    """
    from bitsearch.network import checkpoint, quant, sensitivity

    check_target(target)
    found = checkpoint.read(path)
    if isinstance(found, dict):
        raise ConfigurationError(f"{path} is not one of ours; expected a checkpoint of `bitsearch train`")
    require_same(path, found.model, found.dataset, model, dataset)
    if quantized := found.configuration.assignment.quantized:
        raise ConfigurationError(
            f"{path} has {len(quantized)} quantised layers; expected a float network, as "
            "`bitsearch train --strategy default` makes"
        )
    entry = catalogue.find(model)
    task = entry.task(found.dataset, found.preset)
    network = task.network(found.configuration.options, found.seed)
    checkpoint.load_state(network, found.state)
    scores = sensitivity.fisher(
        network, task, task.load(tuple(data), seed, progress), space := entry.space(task), seed
    )
    return suggest(space.groups, quant.inventory(network), scores, target)


def require_same(source: Path, model: str, dataset: str, asked_model: str, asked_dataset: str | None) -> None:
    """Raise ConfigurationError unless `source` is of the model and data set that were asked for."""
    if asked_model != model or asked_dataset not in (None, dataset):
        asked = f"{asked_model} on {asked_dataset}" if asked_dataset else asked_model
        raise ConfigurationError(f"{source} is of {model} on {dataset}; expected one of {asked}")


def check_target(target: float) -> None:
    """Raise ConfigurationError unless the target is a share."""
    if not 0 < target <= 1:
        raise ConfigurationError(f"--target-fraction {target:g}: expected a number above 0, at most 1")


def _least(scores: Sequence[float], sizes: Sequence[int], needed: float) -> list[int]:
    """Solve the covering knapsack by dynamic programming over sizes rounded down to `STEPS` steps.

    Rounding down never promises more than there is; what is then not reachable takes everything. At the end
    groups that are not needed after all go, the most harmful first.
    """
    unit = max(needed / STEPS, 1e-9)
    steps = [int(size / unit) for size in sizes]
    best = np.full(STEPS + 1, np.inf)
    best[0] = 0.0
    taken = np.zeros((len(scores), STEPS + 1), bool)
    for index, (score, step) in enumerate(zip(scores, steps, strict=True)):
        source = np.maximum(np.arange(STEPS + 1) - step, 0)
        with_group = best[source] + score
        taken[index] = with_group < best
        best = np.where(taken[index], with_group, best)
    left, chosen = STEPS, set(range(len(scores)))
    if np.isfinite(best[STEPS]):
        for index in reversed(range(len(scores))):
            if taken[index, left]:
                left = max(left - steps[index], 0)
            else:
                chosen.remove(index)
    for index in sorted(chosen, key=lambda index: scores[index], reverse=True):
        if sum(sizes[other] for other in chosen) - sizes[index] >= needed:
            chosen.remove(index)
    return sorted(chosen)
