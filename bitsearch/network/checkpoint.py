"""Trained networks on disk, without pickled objects."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from torch import Tensor, nn

from bitsearch.core.assignment import Assignment
from bitsearch.core.atomic import write_atomically
from bitsearch.core.errors import CheckpointError, ConfigurationError, few
from bitsearch.core.records import convert
from bitsearch.core.rounding import Rounding
from bitsearch.core.strategy import Configuration
from bitsearch.network import quant
from bitsearch.network.convert import convert as to_linear
from bitsearch.network.spec import Spec

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """Weights with everything needed to build their network again."""

    model: str
    dataset: str
    preset: str
    configuration: Configuration
    strategy: str | None
    seed: int
    state: Mapping[str, Tensor]
    recipe: str = "paper"
    rounding: Mapping[str, Rounding] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the checkpoint atomically."""
        buffer = io.BytesIO()
        content = {
            "format": FORMAT,
            "model": self.model,
            "dataset": self.dataset,
            "preset": self.preset,
            "assignment": {name: str(value) for name, value in self.configuration.assignment.items()},
            "options": dict(self.configuration.options),
            "strategy": self.strategy,
            "seed": self.seed,
            "state": dict(self.state),
            "recipe": self.recipe,
            "rounding": {name: str(kind) for name, kind in self.rounding.items()},
        }
        torch.save(content, buffer)
        write_atomically(path, buffer.getvalue())


def read(path: Path) -> Checkpoint | dict[str, Tensor]:
    """Read a checkpoint of ours, or the bare state dict of a foreign one.

    Raises:
        CheckpointError: the file is missing or holds neither.
    """
    try:
        # Mapped, not read: permutation matrices of the authors' CaloINN take gigabytes.
        content = torch.load(path, weights_only=True, map_location="cpu", mmap=is_zipfile(path))
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a torch checkpoint of tensors ({type(error).__name__})"
        ) from error
    if isinstance(content, dict) and type(content.get("format")) is int:
        return _ours(path, content)
    return _real(path, _state_dict(path, content))


@dataclass(frozen=True)
class _Header:
    """What a checkpoint says beside its weights, as it stands in the file."""

    format: int
    model: str
    dataset: str
    preset: str
    assignment: Mapping[str, str]
    options: Mapping[str, str]
    strategy: str | None
    seed: int
    recipe: str = "paper"
    rounding: Mapping[str, str] = field(default_factory=dict)


def _ours(path: Path, content: Mapping[object, object]) -> Checkpoint:
    try:
        header = convert({name: value for name, value in content.items() if name != "state"}, _Header)
        rounding = {name: Rounding(kind) for name, kind in header.rounding.items()}
        configuration = Configuration(Assignment(header.assignment), header.options)
    except (TypeError, ValueError, RecursionError, ConfigurationError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); expected what `bitsearch train` wrote"
        ) from error
    if header.format != FORMAT:
        raise CheckpointError(f"{path} has format {header.format}; expected {FORMAT}")
    state = content.get("state")
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state dict of tensors; expected what `bitsearch train` wrote")
    return Checkpoint(
        header.model,
        header.dataset,
        header.preset,
        configuration,
        header.strategy,
        header.seed,
        _real(path, state),
        header.recipe,
        rounding,
    )


def _real(path: Path, state: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    """Hold that weights are finite real numbers under names.

    Raises:
        CheckpointError: one is not; the first is named.
    """
    for name, value in state.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{path} has the key {name!r}; expected names of parameters")
        if value.is_complex() or value.is_quantized or value.layout != torch.strided:
            raise CheckpointError(
                f"{path}: {name} is {value.dtype} ({value.layout}); expected real, dense numbers"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{path}: {name} holds NaN or infinity; expected finite weights")
    return dict(state)


def read_foreign(paths: Sequence[Path]) -> dict[str, Tensor]:
    """Join the state dicts of several files; a `.npy` file is a tensor of its name.

    Raises:
        CheckpointError: a file is missing, one of ours, or no checkpoint, or two hold the same key.
    """
    joined: dict[str, Tensor] = {}
    for path in paths:
        found = {path.stem: _array(path)} if path.suffix == ".npy" else read(path)
        if isinstance(found, Checkpoint):
            raise CheckpointError(f"{path} is a whole checkpoint of ours; expected it alone")
        if twice := joined.keys() & found.keys():
            raise CheckpointError(f"{path} holds keys that another file holds too: {few(twice)}")
        joined |= found
    return joined


def _array(path: Path) -> Tensor:
    try:
        tensor = torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise CheckpointError(f"{path} cannot be read as an array: {error}") from error
    return _real(path, {path.stem: tensor})[path.stem]


def load_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load parameters into a network of the same structure; counts of BatchNorm's batches, never used, may lack.

    Raises:
        CheckpointError: keys are missing or unknown, or shapes differ; the first are listed.
    """
    expected = network.state_dict()
    state = {name: value for name, value in expected.items() if name.endswith("num_batches_tracked")} | dict(
        state
    )
    missing, unknown = sorted(set(expected).difference(state)), sorted(set(state).difference(expected))
    shapes = [
        f"{name}: found {tuple(state[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    if missing or unknown or shapes:
        raise CheckpointError(
            f"the checkpoint does not fit the network; missing keys: {few(missing)}; "
            f"unknown keys: {few(unknown)}; other shapes: {few(shapes)}; "
            "check --model, --dataset, --preset and --strategy"
        )
    network.load_state_dict(state)


def _state_dict(path: Path, content: object) -> dict[str, Tensor]:
    if isinstance(content, dict):
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return content
        nested = [value for value in content.values() if isinstance(value, dict) and value]
        found = [value for value in nested if all(isinstance(item, Tensor) for item in value.values())]
        if len(found) == 1:
            return dict(found[0])
    raise CheckpointError(f"{path} holds {type(content).__name__}; expected one state dict of tensors")


def load_network(
    spec: Spec,
    configuration: Configuration,
    state: Mapping[str, Tensor],
    rounding: Mapping[str, Rounding] | None = None,
) -> nn.Module:
    """Build a configuration's network with given weights; raises CheckpointError where they do not fit."""
    network = spec.task.network(configuration.options, spec.seed)
    if not set(state) <= set(
        network.state_dict()
    ):  # else named as the model file has it, before any conversion
        network = to_linear(network)
    load_state(network, state)
    to_linear(network)
    return quant.apply(network, configuration.assignment, rounding=rounding).eval()
