"""What most models have in common: a task with defaults, and events in three sets."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitsearch.core.errors import ConfigurationError, DataError
from bitsearch.core.measurement import Evaluation, Metric, Quantity, Yardstick, over_trainings
from bitsearch.core.task import DataIdentity, Graph, Progress, Recipe, Recipes, Session

Arrays = Mapping[str, NDArray[np.float32]]
REFERENCE = Recipe(steps=1000, batch_size=128, max_learning_rate=3e-3, weight_decay=0.01, epsilon=1e-8)
TUNED = replace(REFERENCE, max_learning_rate=1e-3, warm_up=0.1, quantized_rate=2.0)
RECIPES = Recipes(REFERENCE, replace(TUNED, steps=100), replace(TUNED, steps=300), finalists=4, repetitions=3)
OUTPUT = "output"
DESCRIPTIVE = frozenset(
    {"model", "dataset", "preset", "metrics", "objective", "served", "measured", "latency_batches"}
)
"""What a task says of itself without shaping a training."""


class TaskBase:
    """A task whose one graph is the network itself: derive from it, and override what is different.

    Required beside it: `metrics`, the first of which is the objective, and the methods `network`, `load`, `loss`,
    `inputs` and `measure`, as `bitsearch.core.task.Task` describes them. Where the class is a dataclass, its fields
    are settings of the run.
    """

    dataset: str
    preset: str
    metrics: tuple[Metric, ...]
    inputs: Callable[[int, int], Arrays]
    measure: Callable[[Mapping[str, Session], Any], Mapping[str, Quantity]]
    recipes: Recipes = RECIPES
    served: str = "network"
    latency_batches: tuple[int, ...] = (1, 100)

    def __init__(self, dataset: str, preset: str) -> None:
        self.dataset, self.preset = dataset, preset

    @property
    def model(self) -> str:
        """Name of the model: its file's."""
        return Path(inspect.getfile(type(self))).stem

    @property
    def objective(self) -> str:
        """The first metric."""
        if not self.metrics:
            raise ConfigurationError(
                f"{self.model} has no metrics; expected one at least, the objective first"
            )
        return self.metrics[0].name

    @property
    def measured(self) -> tuple[str, ...]:
        """The graph that is served."""
        return (self.served,)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The recipes and the fields of a dataclass, as JSON values."""
        raw: dict[str, Any] = asdict(self) if is_dataclass(self) else {}
        shaping = {name: value for name, value in raw.items() if name not in DESCRIPTIVE}
        return {**shaping, "recipes": asdict(self.recipes)}

    def prepare(self, network: Any, data: Any, generator: torch.Generator) -> None:
        """Leave the network as it is: nothing in it depends on data before training."""

    def graphs(self, network: Any) -> Mapping[str, Graph]:
        """Give the network itself, which takes what `inputs` draws, in that order, and makes `output`."""
        example = {name: torch.from_numpy(array) for name, array in self.inputs(2, 0).items()}
        return {self.served: Graph(Served(network), example, (OUTPUT,), self.model)}

    def convert(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Take names of a foreign checkpoint as they are."""
        return state

    def yardsticks(self, data: Any) -> tuple[Yardstick, ...]:
        """Give none: no simple estimator is known."""
        return ()

    def evaluate(
        self,
        sessions: Sequence[Session],
        baseline: Sequence[Session],
        data: Any,
        digest: str,
        seed: int,
        progress: Progress,
    ) -> tuple[Mapping[str, Quantity], Evaluation]:
        """Measure every training on the test events, without plots; nothing where other graphs are measured."""
        if self.measured != (self.served,):
            return {}, Evaluation(digest, 0)
        found = [self.measure({self.served: session}, data.held_out) for session in sessions]
        return over_trainings(found), Evaluation(
            digest, max((item.n for item in found[0].values()), default=0)
        )


@dataclass(frozen=True)
class Sample:
    """Events by column, axis 0 counting them: training events as tensors, the others as arrays.

    A search measures on the events of `validation`; what is reported comes from those of `test`.
    """

    identity: DataIdentity
    training: Mapping[str, Tensor]
    validation: Arrays
    test: Arrays

    @classmethod
    def split(
        cls, columns: Arrays, identity: DataIdentity, seed: int, validation: float = 0.1, test: float = 0.1
    ) -> "Sample":
        """Divide events at random by shares; `seed` alone decides.

        Raises:
            DataError: a set would be empty.
        """
        rows = split(len(next(iter(columns.values()))), seed, validation, test)
        train, *others = ({name: column[part] for name, column in columns.items()} for part in rows)
        return cls(identity, {name: torch.from_numpy(column) for name, column in train.items()}, *others)

    @property
    def events(self) -> int:
        """Number of training events."""
        return len(next(iter(self.training.values())))

    @property
    def held_out(self) -> "Sample":
        """The same with the test events as validation events."""
        return replace(self, validation=self.test)

    def to(self, device: str) -> "Sample":
        """Put the training events on a torch device."""
        return replace(self, training={name: column.to(device) for name, column in self.training.items()})


class Split(NamedTuple):
    """Which events train, which choose, and which are only measured: row numbers."""

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp]


def split(events: int, seed: int, validation: float = 0.1, test: float = 0.1) -> Split:
    """Divide events at random by shares.

    Raises:
        DataError: If a set would be empty.
    """
    order = np.random.default_rng(seed).permutation(events)
    ends = np.cumsum([round(events * validation), round(events * test)])
    parts = Split(*(np.sort(part) for part in (order[ends[1] :], order[: ends[0]], order[ends[0] : ends[1]])))
    sizes = [len(part) for part in parts]
    if not all(sizes):
        raise DataError(
            f"{events} events leave {sizes[0]} to train, {sizes[1]} to validate and {sizes[2]} to test; "
            "expected some in each"
        )
    return parts


class Served(nn.Module):
    """A network as its own graph."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Any:
        """Map what the network maps."""
        return self.network(*inputs)
