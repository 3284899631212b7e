"""A user's own model: a sum of squares, learnt by two linear layers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitsearch.core.measurement import Evaluation, Metric, Quantity, Yardstick
from bitsearch.core.task import DataIdentity, Graph, Progress, Recipe, Recipes, Session

DATASETS, PRESETS = ("squares",), ("smoke",)
FEATURES = 6


@dataclass(frozen=True)
class Squares:
    x: Tensor
    y: Tensor

    @property
    def identity(self) -> DataIdentity:
        return DataIdentity(True, "random numbers and the sums of their squares", ())

    @property
    def events(self) -> int:
        return len(self.x) - 100

    def to(self, device: str) -> "Squares":
        return Squares(self.x.to(device), self.y.to(device))


class Served(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(x)
        return y


RECIPE = Recipe(steps=30, batch_size=32, max_learning_rate=1e-2, weight_decay=0.0, epsilon=1e-8)

RECIPES = Recipes(RECIPE, RECIPE, RECIPE, finalists=1, repetitions=1)


@dataclass(frozen=True)
class SquaresTask:
    dataset: str
    preset: str
    model: str = "mine"
    metrics: tuple[Metric, ...] = (Metric("error", "Mean squared error", "", "minimize", "mean over events"),)
    objective: str = "error"
    recipes: Recipes = RECIPES
    served: str = "regressor"
    measured: tuple[str, ...] = ("regressor",)
    latency_batches: tuple[int, ...] = (1,)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"recipes": asdict(self.recipes)}

    def network(self, _options: Mapping[str, str], seed: int) -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Linear(16, 1))

    def load(self, _paths: Sequence[Path], seed: int, _progress: Progress) -> Squares:
        x = torch.randn(500, FEATURES, generator=torch.Generator().manual_seed(seed))
        return Squares(x, x.square().sum(1, keepdim=True))

    def prepare(self, _network: nn.Module, _data: Squares, _generator: torch.Generator) -> None:
        pass

    def loss(self, network: nn.Module, data: Squares, indices: Tensor, _generator: torch.Generator) -> Tensor:
        loss: Tensor = (network(data.x[indices]) - data.y[indices]).square().mean()
        return loss

    def graphs(self, network: nn.Module) -> Mapping[str, Graph]:
        return {"regressor": Graph(Served(network), {"x": torch.ones(2, FEATURES)}, ("y",), "x to y")}

    def inputs(self, batch: int, seed: int) -> Mapping[str, NDArray[np.float32]]:
        return {"x": np.random.default_rng(seed).standard_normal((batch, FEATURES), np.float32)}

    def convert(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return state

    def measure(self, sessions: Mapping[str, Session], data: Squares) -> Mapping[str, Quantity]:
        found = sessions["regressor"].run(None, {"x": data.x[-100:].numpy()})[0]
        return {"error": Quantity(float(np.mean((found - data.y[-100:].numpy()) ** 2)))}

    def yardsticks(self, data: Squares) -> tuple[Yardstick, ...]:
        return (Yardstick("the mean", "error", Quantity(float(data.y[-100:].var()))),)

    def evaluate(
        self,
        sessions: Sequence[Session],
        baseline: Sequence[Session],
        data: Squares,
        digest: str,
        seed: int,
        progress: Progress,
    ) -> tuple[Mapping[str, Quantity], Evaluation]:
        return self.measure({"regressor": sessions[0]}, data), Evaluation(digest, 100)


def task(dataset: str, preset: str) -> SquaresTask:
    return SquaresTask(dataset, preset)
