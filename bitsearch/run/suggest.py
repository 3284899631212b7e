"""Choose what to quantise from sensitivities alone: no training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.knapsack import cover
from bitsearch.core.rundir import RunFolder
from bitsearch.core.space import Fractions, Group, Inventory
from bitsearch.core.task import Progress
from bitsearch.network import catalogue


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
    levels = cover(
        [(0.0, scores[group.name]) for group in groups],
        [(0.0, sizes[group.name]) for group in groups],
        needed,
    )
    chosen = [index for index, level in enumerate(levels) if level]
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
    network = catalogue.network(task, found.configuration.options, found.seed)
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
