"""A tagger of flat columns: a fully connected network that tells signal from background."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from bitsearch.core.task import Recipe, Recipes
from bitsearch.models.columns.formula import Formula
from bitsearch.models.columns.task import ColumnTask, Standardised

WIDTHS = {"smoke": (16, 16), "laptop": (64, 64, 64)}
REFERENCE = Recipe(2000, 256, 3e-3, 0.01, 1e-8)
TUNED = replace(REFERENCE, max_learning_rate=1e-3, warm_up=0.1, quantized_rate=2.0)
RECIPES = {
    "smoke": Recipes(replace(REFERENCE, steps=60), replace(TUNED, steps=10), replace(TUNED, steps=20), 1, 1),
    "laptop": Recipes(REFERENCE, replace(TUNED, steps=100), replace(TUNED, steps=400), 4, 3),
}
accepts = Formula.parse
"""Data sets may be named by their columns."""


class Tagger(Standardised):
    """Linear layers with ReLU between them, of the given widths and one output."""

    def __init__(self, features: int, widths: tuple[int, ...]) -> None:
        super().__init__(features)
        sizes = (features, *widths)
        self.body = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes, widths, strict=False))
        self.head = nn.Linear(sizes[-1], 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(batch, features)` to logits `(batch, 1)`."""
        x = (features - self.mean) * self.scale
        for layer in self.body:
            x = layer(x).relu()
        logits: Tensor = self.head(x)
        return logits


def task(dataset: str = "toy", preset: str = "laptop") -> ColumnTask:
    """Set up the tagger of flat columns."""
    return ColumnTask(
        model="tagger",
        dataset=dataset,
        preset=preset,
        build=lambda features: Tagger(features, WIDTHS[preset]),
        toys=toys,
        toy_features=("mass", "pt"),
        length=0,
        recipes=RECIPES[preset],
    )


def toys(rng: np.random.Generator, events: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw masses around 125 and 105 GeV and transverse momenta of 50 GeV and more."""
    signal = rng.random(events) < 0.5
    mass = rng.normal(np.where(signal, 125.0, 105.0), 25.0)
    pt = 50 + rng.exponential(np.where(signal, 60.0, 40.0))
    return np.stack([mass, pt], 1).astype(np.float32), signal.astype(np.float32)
