"""A network that lives in somebody's script or notebook, as a task that the pipeline runs like any other."""

import copy
import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from bitsearch.core.assignment import digest
from bitsearch.core.errors import ConfigurationError, DataError
from bitsearch.core.measurement import Evaluation, Metric, Quantity, Yardstick, over_trainings
from bitsearch.core.space import group, handmade
from bitsearch.core.task import DataFile, DataIdentity, Graph, Progress, Recipes, Session
from bitsearch.network.catalogue import Entry
from bitsearch.network.convert import convert
from bitsearch.network.public_export import Served, named

NETWORK = "network"
BATCH = 4096
Make = Callable[[], nn.Module]
Loss = Callable[[Any, Tensor], Tensor]
Score = Callable[[NDArray[Any], Any], float]


@dataclass(frozen=True)
class Events:
    """Inputs and, last, targets: one tensor each, axis 0 counting the events of a set."""

    training: tuple[Tensor, ...]
    validation: tuple[Tensor, ...]
    test: tuple[Tensor, ...]

    @property
    def events(self) -> int:
        """Number of training events."""
        return len(self.training[0])

    @cached_property
    def identity(self) -> DataIdentity:
        """Where the data come from: this process; their content identifies them."""
        sets = {"training": self.training, "validation": self.validation, "test": self.test}
        files = tuple(DataFile(role, "in memory", len(item[0]), _sha256(item)) for role, item in sets.items())
        counts = ", ".join(f"{len(item[0])} for {role}" for role, item in sets.items())
        return DataIdentity(False, f"Events given in memory: {counts}.", files)

    @property
    def held_out(self) -> "Events":
        """The same with the test events as validation events."""
        return replace(self, validation=self.test)

    def to(self, device: str) -> "Events":
        """Put the training events on a torch device."""
        return replace(self, training=tuple(item.to(device) for item in self.training))

    @classmethod
    def of(cls, data: Any, validation: Any, test: Any, seed: int) -> "Events":
        """Collect events; sets that are not given are a tenth each of `data`, drawn by `seed`.

        Raises:
            DataError: the data are neither tensors nor batches of them, or a set is empty.
        """
        whole = gather(data)
        order = np.random.default_rng(seed).permutation(len(whole[0]))
        others = []
        for given in (validation, test):
            size = 0 if given is not None else max(1, len(whole[0]) // 10)
            rows, order = torch.from_numpy(order[:size]), order[size:]
            others.append(gather(given) if given is not None else tuple(item[rows] for item in whole))
        made = cls(tuple(item[torch.from_numpy(order)] for item in whole), *others)
        for name in ("training", "validation", "test"):
            shapes = [tuple(item.shape[1:]) for item in getattr(made, name)]
            if not len(getattr(made, name)[0]) or shapes != [tuple(item.shape[1:]) for item in whole]:
                raise DataError(f"the {name} set has {len(getattr(made, name)[0])} events of shapes {shapes}")
        return made


def gather(data: Any) -> tuple[Tensor, ...]:
    """Give inputs and targets as tensors, from tensors, arrays, a DataLoader, or a function that gives them.

    Raises:
        DataError: found anything else, or numbers of events that differ.
    """
    data = data() if inspect.isroutine(data) else data
    if not isinstance(data, tuple | list):
        if not isinstance(data, Iterable) or isinstance(data, Tensor | np.ndarray | str | Mapping):
            raise DataError(
                f"found data of type {type(data).__name__}; expected (inputs, targets), a DataLoader of such batches, "
                "or a function that gives either"
            )
        if isinstance(data, DataLoader) and not isinstance(data.dataset, IterableDataset):
            # In the order of the data set: shuffled batches would be other data at every start.
            data = DataLoader(data.dataset, data.batch_size or 1, collate_fn=data.collate_fn)
        batches = [tuple(torch.as_tensor(item) for item in batch) for batch in data]
        data = tuple(torch.cat(column) for column in zip(*batches, strict=True))
    items = tuple(torch.as_tensor(item) for item in data)
    if len(items) < 2 or len({len(item) if item.dim() else -1 for item in items}) != 1:
        raise DataError(
            f"found data of shapes {[tuple(item.shape) for item in items]}; expected inputs and then targets, "
            "with the same number of events"
        )
    return tuple(item.float() if item.dtype == torch.float64 else item.detach().cpu() for item in items)


@dataclass
class OwnTask:
    """A network, its events, a loss and a metric: what `bitsearch.core.task.Task` asks for.

    A network given as an object always starts from its own weights; a function that builds one gives other initial
    weights to every repetition.
    """

    model: str
    source: nn.Module | Make
    data: Events
    criterion: Loss
    score: Score
    metrics: tuple[Metric, ...]
    recipes: Recipes
    outputs: tuple[str, ...]
    dataset: str = "own"
    preset: str = "own"
    served: str = NETWORK
    measured: tuple[str, ...] = (NETWORK,)
    latency_batches: tuple[int, ...] = (1, 100)
    examples: Mapping[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.examples = named(self.network({}, 0), self.data.validation[:-1])

    @property
    def objective(self) -> str:
        """The metric that was given."""
        return self.metrics[0].name

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What shaped the run: the network's structure and weights, loss, metric and recipes."""
        torch.manual_seed(0)
        network = self.network({}, 0)
        return {
            "network": repr(network),
            "weights": _sha256(tuple(network.state_dict().values())),
            "loss": _named(self.criterion),
            "metric": _named(self.score),
            "recipes": asdict(self.recipes),
        }

    def network(self, options: Mapping[str, str], seed: int) -> nn.Module:
        """Build the float network, or copy it."""
        made = copy.deepcopy(self.source) if isinstance(self.source, nn.Module) else self.source()
        if not isinstance(made, nn.Module):
            raise ConfigurationError(f"the network is {type(made).__name__}; expected a torch.nn.Module")
        return convert(nn.Sequential(made) if isinstance(made, nn.Linear) else made)

    def load(self, paths: Sequence[Path], seed: int, progress: Progress) -> Events:
        """Give the events."""
        return self.data

    def prepare(self, network: nn.Module, data: Events, generator: torch.Generator) -> None:
        """Leave the network as it is."""

    def loss(self, network: nn.Module, data: Events, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Compute the loss; dropout follows from the generator's seed."""
        torch.manual_seed(generator.initial_seed())
        *inputs, targets = (item[indices.to(item.device)] for item in data.training)
        return self.criterion(network(*inputs), targets)

    def graphs(self, network: nn.Module) -> Mapping[str, Graph]:
        """Give the network itself."""
        return {NETWORK: Graph(Served(network), self._rows(np.arange(2)), self.outputs, self.model)}

    def inputs(self, batch: int, seed: int) -> Mapping[str, NDArray[np.float32]]:
        """Draw validation events."""
        rows = np.random.default_rng(seed).integers(0, len(self.data.validation[0]), batch)
        return {name: item.numpy() for name, item in self._rows(rows).items()}

    def convert(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Take names of a checkpoint as they are."""
        return state

    def yardsticks(self, data: Events) -> tuple[Yardstick, ...]:
        """Give none: no simple estimator is known."""
        return ()

    def measure(self, sessions: Mapping[str, Session], data: Events) -> Mapping[str, Quantity]:
        """Compute metric and loss of the validation events."""
        return self._measured(sessions[NETWORK], data.validation)

    def evaluate(
        self,
        sessions: Sequence[Session],
        baseline: Sequence[Session],
        data: Events,
        digest: str,
        seed: int,
        progress: Progress,
    ) -> tuple[Mapping[str, Quantity], Evaluation]:
        """Compute metric and loss of the test events, which nothing was chosen on, for every training."""
        found = [self._measured(session, data.test) for session in sessions]
        return over_trainings(found), Evaluation(digest, len(data.test[0]))

    def _rows(self, rows: NDArray[np.intp]) -> dict[str, Tensor]:
        return {name: item[torch.from_numpy(rows % len(item))] for name, item in self.examples.items()}

    def _measured(self, session: Session, events: tuple[Tensor, ...]) -> dict[str, Quantity]:
        *inputs, targets = events
        parts = [
            session.run(
                None,
                {
                    name: x[start : start + BATCH].numpy()
                    for name, x in zip(self.examples, inputs, strict=True)
                },
            )
            for start in range(0, len(targets), BATCH)
        ]
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        outputs = columns[0] if len(columns) == 1 else tuple(columns)
        with torch.no_grad():
            tensors = [torch.from_numpy(column) for column in columns]
            loss = self.criterion(tensors[0] if len(tensors) == 1 else tuple(tensors), targets)
        score = float(self.score(targets.numpy(), outputs))
        return {
            self.objective: Quantity(score, None, len(targets)),
            "loss": Quantity(float(loss), None, len(targets)),
        }


def entry(
    task: OwnTask, groups: Mapping[str, str | Sequence[str]], strategies: Mapping[str, Mapping[str, str]]
) -> Entry:
    """Describe a task as the catalogue does: with groups of layers and handmade strategies."""
    model = SimpleNamespace(
        DATASETS=(task.dataset,),
        PRESETS=(task.preset,),
        RECIPES=(task.recipes.name,),
        task=lambda *_: task,
    )
    search_space = SimpleNamespace(
        groups=lambda layers: group(layers, groups),
        strategies=lambda layers, _preset: handmade(layers, strategies),
    )
    return Entry(task.model, lambda: model, search_space, users=True)


def _sha256(tensors: Sequence[Tensor]) -> str:
    found = hashlib.sha256()
    for item in tensors:
        found.update(f"{item.dtype}{tuple(item.shape)}".encode())
        found.update(np.ascontiguousarray(item.detach().cpu().numpy()).tobytes())
    return found.hexdigest()


def _named(function: Callable[..., Any]) -> str:
    """Name a function and identify its source, where there is one."""
    try:
        source = inspect.getsource(function if inspect.isroutine(function) else type(function))
    except (OSError, TypeError):
        source = ""
    name = getattr(function, "__qualname__", repr(function))
    return f"{getattr(function, '__module__', '')}.{name} {digest(source)}"
