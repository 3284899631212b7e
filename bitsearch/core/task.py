"""What a model file gives: a network, data, a loss, graphs to export and metrics. The search knows nothing else.

The pipeline calls, in this order: `load`, `yardsticks`, `network`, `prepare` (float networks only, once), `loss`
in every training step, `graphs` at export, then `measure` on exported files, and `evaluate` for the final front.
Three sets of events are kept apart: a network is trained on `Data`, candidates are compared by `measure` on its
validation events, and what is reported comes from test events alone: `measure` on `Data.held_out`, and `evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from bitsearch.core.measurement import Evaluation, Metric, Quantity, Yardstick
from bitsearch.core.rounding import Rounding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor, nn

    Arrays = Mapping[str, NDArray[np.float32]]

Progress = Callable[[str, float], None]
"""Called with what is being done and the share done, from 0 to 1."""


Schedule = Literal["one-cycle", "cosine", "linear", "steps", "constant"]


@dataclass(frozen=True)
class DataFile:
    """A file that a run used; `sha256` identifies its content."""

    role: str
    name: str
    events: int
    sha256: str


@dataclass(frozen=True)
class DataIdentity:
    """Which data a run used, in one plain sentence and file by file."""

    generated: bool
    statement: str
    files: tuple[DataFile, ...]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: AdamW (Adam where `weight_decay` is 0), its rate scheduled by optimiser steps.

    `one-cycle` rises for the share `warm_up` of the steps, `cosine` and `linear` fall to 0, `steps` halves the
    rate every `decay_every` steps. Each of the `steps` sums the gradients of `accumulate` batches, whose norm
    `clip` bounds. `quantized_rate` multiplies the learning rate of low-bit weights, which need larger steps to
    change a code. `scratch` starts from random weights instead of the float reference. Only parameters whose names
    begin with `part` are trained, all by default; `then` trains on, another part for instance.
    """

    steps: int
    batch_size: int
    max_learning_rate: float
    weight_decay: float
    epsilon: float
    warm_up: float = 0.3
    quantized_rate: float = 1.0
    scratch: bool = False
    schedule: Schedule = "one-cycle"
    decay_every: int = 1
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = None
    accumulate: int = 1
    part: str = ""
    then: Recipe | None = None

    @property
    def stages(self) -> tuple[Recipe, ...]:
        """List this recipe and those that follow, each by itself."""
        return replace(self, then=None), *(self.then.stages if self.then else ())


@dataclass(frozen=True)
class Recipes:
    """Training from scratch in float, training one candidate of the search, and training the finalists.

    `finalists` limits the members of the search's front that go into final training beside all strategies. Each
    is trained `repetitions` times with other batches and noise: that spread is the uncertainty of its metrics.
    `independent` repetitions start from float references of their own, trained from other initial weights.
    `rounding` pairs patterns of layers' names with how their weights are rounded, first match first; where none
    matches, as the paper does. `name` is the user's choice, `paper` or `improved`.
    """

    reference: Recipe
    candidate: Recipe
    final: Recipe
    finalists: int
    repetitions: int
    independent: bool = True
    name: str = "paper"
    rounding: tuple[tuple[str, Rounding], ...] = ()

    def improved(self, *rounding: tuple[str, Rounding], **changes: Any) -> Recipes:
        """Round otherwise, and change candidates' and finalists' recipes."""
        candidate, final = replace(self.candidate, **changes), replace(self.final, **changes)
        return replace(self, name="improved", rounding=rounding, candidate=candidate, final=final)

    def roundings(self, layers: Iterable[str]) -> dict[str, Rounding]:
        """Tell how each of `layers` rounds its weights where it is quantised."""
        return {layer: self._rounding(layer) for layer in layers}

    def _rounding(self, layer: str) -> Rounding:
        return next((kind for pattern, kind in self.rounding if fnmatchcase(layer, pattern)), Rounding.PAPER)


@dataclass(frozen=True)
class Graph:
    """A module to export, whose attribute `network` is the trained network; axis 0 of every input is the batch."""

    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    doc: str


class Data(Protocol):
    """Loaded data; tasks define what else is inside."""

    @property
    def identity(self) -> DataIdentity:
        """Where the data come from."""
        ...

    @property
    def events(self) -> int:
        """Number of training events."""
        ...

    @property
    def held_out(self) -> Data:
        """The same data with test events, which neither training nor search has seen, as validation events.

        Data that leave it out are reported on the validation events that the search has chosen by.
        """
        ...

    def to(self, device: str) -> Data:
        """Put the training events on a torch device, once, so that no step waits for a file."""
        ...


class Session(Protocol):
    """A servable model, as ONNX Runtime offers it."""

    def run(self, outputs: Sequence[str] | None, inputs: Arrays) -> list[Any]:
        """Compute the named outputs."""
        ...


class Task(Protocol):
    """One network on one data set at one preset.

    `served` names the graph that users run, `measured` those whose sessions `measure` is given.
    """

    model: str
    dataset: str
    preset: str
    metrics: tuple[Metric, ...]
    objective: str
    recipes: Recipes
    served: str
    measured: tuple[str, ...]
    latency_batches: tuple[int, ...]

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that shaped the run, as JSON values."""
        ...

    def network(self, options: Mapping[str, str], seed: int) -> nn.Module:
        """Build the float network; nothing in it knows of quantisation."""
        ...

    def load(self, paths: Sequence[Path], seed: int, progress: Progress) -> Any:
        """Read `paths`, or make the generated default when there are none."""
        ...

    def prepare(self, network: nn.Module, data: Any, generator: Generator) -> None:
        """Initialise what depends on data, before the first training step."""
        ...

    def loss(self, network: nn.Module, data: Any, indices: Tensor, generator: Generator) -> Tensor:
        """Compute the mean loss of the training events `indices`, with noise from `generator`.

        Terms that no parameter with `requires_grad` changes may be left out.
        """
        ...

    def graphs(self, network: nn.Module) -> Mapping[str, Graph]:
        """List the graphs to export by name; `served` names the one that users run."""
        ...

    def inputs(self, batch: int, seed: int) -> Arrays:
        """Draw realistic inputs of the served graph."""
        ...

    def convert(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Rename the state dict of the original authors' code; raises CheckpointError for unknown keys."""
        ...

    def measure(self, sessions: Mapping[str, Session], data: Any) -> Mapping[str, Quantity]:
        """Compute the quick metrics, the objective among them, from exported graphs, on the validation events.

        A search is given `data`; finally trained configurations are given `data.held_out`, the test events.
        """
        ...

    def yardsticks(self, data: Any) -> tuple[Yardstick, ...]:
        """Give what simple estimators reach on the test events."""
        ...

    def evaluate(
        self,
        sessions: Sequence[Session],
        baseline: Sequence[Session],
        data: Any,
        digest: str,
        seed: int,
        progress: Progress,
    ) -> tuple[Mapping[str, Quantity], Evaluation]:
        """Compute the full metrics and the plots of the served graph on test events.

        `sessions` are a configuration's repeated trainings, the served one first; `baseline` those of the float
        strategy, empty where there are none, and the same object where the configuration is that strategy.
        """
        ...


@runtime_checkable
class PublishedTask(Task, Protocol):
    """A task whose foreign checkpoints tell by their names what was quantised."""

    def strategy_of(self, state: Mapping[str, Tensor]) -> str | None:
        """Name the strategy that a foreign state dict was trained as; None where its names do not tell."""
        ...


@runtime_checkable
class GeneratorTask(Task, Protocol):
    """A task whose network generates events, so that a file of events can be evaluated like a model."""

    def evaluate_file(
        self, path: Path, data: Any, digest: str, seed: int, progress: Progress
    ) -> tuple[Mapping[str, Quantity], Evaluation]:
        """Compute the metrics and plots of the events in `path`; raises DataError for another format."""
        ...
