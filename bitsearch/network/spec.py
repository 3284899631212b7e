"""What to train: a model on its data, named so that any process can set it up."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bitsearch.core.names import safe_name
from bitsearch.core.precision import Precision
from bitsearch.core.rundir import RunFolder
from bitsearch.core.seeds import derive
from bitsearch.core.space import Inventory
from bitsearch.core.task import Progress, Task
from bitsearch.network import catalogue


def silent(_text: str, _share: float) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class Spec:
    """A model, its data and the folder of its run, by names, paths and numbers alone.

    Another process that it is sent to loads data of its own, and reports no progress.
    """

    model: str
    dataset: str
    preset: str
    paths: tuple[Path, ...]
    folder: Path
    seed: int
    device: str = "cpu"
    threads: int = 1
    recipe: str | None = None
    precisions: tuple[Precision, ...] = (Precision.FLOAT32, Precision.TERNARY)
    progress: Progress = field(default=silent, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what is loaded and who watches."""
        return {item.name: getattr(self, item.name) for item in fields(self)} | {"progress": silent}

    @cached_property
    def task(self) -> Task:
        """Give the model on its data set."""
        return catalogue.find(self.model).task(self.dataset, self.preset, self.recipe)

    @cached_property
    def data(self) -> Any:
        """Give the loaded data."""
        return self.task.load(self.paths, self.seed, self.progress).to(self.device)

    @cached_property
    def graphs(self) -> tuple[str, ...]:
        """Name the graphs that measuring needs, the served one first."""
        return tuple(dict.fromkeys((self.task.served, *self.task.measured)))

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """Name everything that the measured values depend on: contents and resolved settings, never places.

        Reads the data.
        """
        files = self.data.identity.files
        return {
            "model": catalogue.find(self.model).name,
            **{f"content of {name}": digest for name, digest in catalogue.contents(self.model).items()},
            **{name: str(getattr(self, name)) for name in ("dataset", "preset", "seed")},
            **{
                f"{file.role} data file {index}": f"{file.sha256} ({file.events} events)"
                for index, file in enumerate(files, 1)
            },
            **{f"settings.{name}": value for name, value in _flat(self.task.settings)},
            **({"precisions": " ".join(self.precisions)} if self.counts_bits else {}),
        }

    @property
    def counts_bits(self) -> bool:
        """Whether there are so many precisions that bits a weight count, and not the quantised fraction."""
        return len(self.precisions) > 2

    def network(self, options: Mapping[str, str], repetition: int = 0) -> nn.Module:
        """Build the float network; its structure follows from the seed, its initial weights also from `repetition`."""
        torch.manual_seed(derive(self.seed, repetition))
        return catalogue.network(self.task, options, self.seed)

    def inventory(self, options: Mapping[str, str]) -> Inventory:
        """Count the layers of the network with these options, once."""
        key = tuple(options.values())
        if key not in self._inventories:
            self._inventories[key] = catalogue.inventory(self.task, options)
        return self._inventories[key]

    @cached_property
    def _inventories(self) -> dict[tuple[str, ...], Inventory]:
        return {}

    def work(self, kind: str, options: Mapping[str, str], suffix: str) -> Path:
        """Give the path in `work` of what is kept of one kind for these options."""
        name = safe_name("-".join([kind, *options.values()]))
        return RunFolder(self.folder).work / f"{name}{suffix}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value, default=str)
