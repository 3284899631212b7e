"""The task of a tagger on columns: files or toy events in, signal against background, ROC curves out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from bitsearch.core.errors import DataError
from bitsearch.core.measurement import Evaluation, Metric, Quantity
from bitsearch.core.task import DataFile, DataIdentity, Graph, Progress, Recipes, Session
from bitsearch.models.base import Sample, TaskBase
from bitsearch.models.columns import files
from bitsearch.models.columns.formula import Formula
from bitsearch.models.metrics import classification

TOY = "toy"
"""The data set that needs no file."""
BATCH = 1000
CLASSES = ("signal", "background")
PROBABILITY = "signal_probability"
HOW = "mean over n trainings and their standard deviation, on the same held-out events"
METRICS = (
    Metric("cross_entropy", "Cross entropy", "nats", "minimize", HOW),
    Metric("accuracy", "Accuracy", "", "maximize", HOW),
    Metric("auc", "AUC", "", "maximize", HOW),
    Metric("rejection_50", "Background rejection at 50 % signal efficiency", "", "maximize", HOW),
    Metric("rejection_30", "Background rejection at 30 % signal efficiency", "", "maximize", HOW),
)
Toys = Callable[[np.random.Generator, int], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Draws features and labels of so many events."""


@dataclass(frozen=True, kw_only=True)
class ColumnTask(TaskBase):
    """A tagger: `build(features)` makes its network of one logit, `toys` draws events where no file is given.

    `length` is the number of constituents that are read of variable-length columns, 0 for flat ones. The data set is
    a formula, `label ~ feature + feature`, or `toy`.
    """

    model: str = "tagger"
    dataset: str
    preset: str
    build: Callable[[int], nn.Module]
    toys: Toys
    toy_features: tuple[str, ...]
    length: int
    recipes: Recipes
    latency_batches: tuple[int, ...] = (1, 100)
    metrics: tuple[Metric, ...] = field(default=METRICS)
    served: str = "tagger"

    @property
    def formula(self) -> Formula:
        """The columns of the data set."""
        return Formula("is_signal", self.toy_features) if self.dataset == TOY else Formula.parse(self.dataset)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The columns, and how the network is trained."""
        found = {name: value for name, value in super().settings.items() if name not in ("build", "toys")}
        return {**found, "label": self.formula.label, "features": list(self.formula.features)}

    def network(self, options: Mapping[str, str], seed: int) -> nn.Module:
        """Build the float network for the columns of the formula."""
        return self.build(len(self.formula.features))

    def load(self, paths: Sequence[Path], seed: int, progress: Progress) -> Sample:
        """Read files, or draw toy events: one for all sets, or one each to train, validate and test.

        Raises:
            DataError: another number of files, or one that cannot be read.
        """
        if not paths:
            return self._toys(seed)
        if len(paths) not in (1, 3):
            raise DataError(
                f"found {len(paths)} files; expected one, or one each to train, validate and test"
            )
        tables = []
        for index, path in enumerate(paths):
            progress(f"reading {path.name}", index / len(paths))
            tables.append(self._read(path))
        roles = ("training", "validation", "test") if len(paths) == 3 else ("training, validation, test",)
        identity = DataIdentity(
            False,
            f"Columns {self.formula} of {', '.join(path.name for path in paths)}"
            + ("." if len(paths) == 3 else f", divided at random by seed {seed}."),
            tuple(
                files.identify(role, path, len(table["label"]))
                for role, path, table in zip(roles, paths, tables, strict=True)
            ),
        )
        if len(tables) == 1:
            return Sample.split(tables[0], identity, seed)
        training = {name: torch.from_numpy(column) for name, column in tables[0].items()}
        return Sample(identity, training, tables[1], tables[2])

    def prepare(self, network: Any, data: Sample, generator: torch.Generator) -> None:
        """Have the network standardise its inputs as the training events need."""
        features = data.training["features"].flatten(0, -2)
        present = features[features.abs().amax(-1) > 0] if self.length else features
        network.standardise(present.mean(0), present.std(0))

    def loss(self, network: nn.Module, data: Sample, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Compute the mean cross entropy."""
        logits = network(data.training["features"][indices])
        return binary_cross_entropy_with_logits(logits, data.training["label"][indices])

    def graphs(self, network: nn.Module) -> Mapping[str, Graph]:
        """Give the tagger with its sigmoid."""
        example = {name: torch.from_numpy(array) for name, array in self.inputs(2, 0).items()}
        doc = f"{', '.join(self.formula.features)} in this order to the probability of {self.formula.label}"
        return {self.served: Graph(Probability(network), example, (PROBABILITY,), doc)}

    def inputs(self, batch: int, seed: int) -> Mapping[str, NDArray[np.float32]]:
        """Draw normal numbers; constituents, where there are any, end in rows of zeros."""
        rng, width = np.random.default_rng(seed), len(self.formula.features)
        if not self.length:
            return {"features": rng.standard_normal((batch, width), np.float32)}
        features = rng.standard_normal((batch, self.length, width), np.float32)
        present = np.arange(self.length) < rng.integers(1, self.length + 1, (batch, 1))
        return {"features": features * present[..., None].astype(np.float32)}

    def measure(self, sessions: Mapping[str, Session], data: Sample) -> Mapping[str, Quantity]:
        """Compute all metrics on the validation events."""
        return classification.metrics(
            _scores(sessions[self.served], data.validation), _signal(data.validation)
        )

    def evaluate(
        self,
        sessions: Sequence[Session],
        baseline: Sequence[Session],
        data: Sample,
        digest: str,
        seed: int,
        progress: Progress,
    ) -> tuple[Mapping[str, Quantity], Evaluation]:
        """Compute the metrics on the test events and draw ROC, rejection and calibration curves."""
        scores, signal = [_scores(session, data.test) for session in sessions], _signal(data.test)
        return (
            classification.over_trainings(scores, signal),
            classification.evaluation(scores, signal, digest, CLASSES),
        )

    def _read(self, path: Path) -> dict[str, NDArray[np.float32]]:
        formula = self.formula
        columns = files.read(path, (formula.label, *formula.features), max(self.length, 1))
        label = columns.pop(formula.label)
        values = sorted({float(value) for value in np.unique(label)[:5]})
        if label.ndim > 1 or values != [0, 1]:
            raise DataError(
                f"{path}: the label {formula.label!r} has the values {values}; expected 0 for background and 1 for "
                "signal, both of them present"
            )
        for name, column in columns.items():
            if (column.ndim == 2) != bool(self.length):
                found = "several values" if column.ndim == 2 else "one value"
                other = "constituents" if column.ndim == 2 else "tagger"
                raise DataError(
                    f"{path}: column {name!r} has {found} an event; {self.model} expects the other kind: "
                    f"choose columns with --features, or --model {other}"
                )
        features = np.stack([columns[name] for name in formula.features], -1)
        return {"features": features, "label": label[:, None]}

    def _toys(self, seed: int) -> Sample:
        events = 2000 if self.preset == "smoke" else 20_000
        features, label = self.toys(np.random.default_rng(seed), events)
        statement = f"{events:,} toy events, drawn by seed {seed}."
        identity = DataIdentity(True, statement, (DataFile("toys", TOY, events, ""),))
        return Sample.split({"features": features, "label": label[:, None]}, identity, seed)


class Probability(nn.Module):
    """A tagger whose logit has become a probability."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        """Give the probability of signal, `(batch, 1)`."""
        return torch.sigmoid(self.network(features))


class Standardised(nn.Module):
    """A network that subtracts the mean of its inputs' last axis and divides by their standard deviation."""

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def standardise(self, mean: Tensor, deviation: Tensor) -> None:
        """Take mean and standard deviation `(features,)`; what does not vary is left as wide as it is."""
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(deviation > 0, 1 / deviation, torch.ones_like(deviation)))


def _scores(session: Session, events: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    features = events["features"]
    parts = [
        session.run([PROBABILITY], {"features": features[start : start + BATCH]})[0][:, 0]
        for start in range(0, len(features), BATCH)
    ]
    return np.concatenate(parts).astype(np.float64)


def _signal(events: Mapping[str, NDArray[np.float32]]) -> NDArray[np.bool_]:
    return np.asarray(events["label"][:, 0] > 0.5)
