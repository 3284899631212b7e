"""A tagger of variable-length columns: a deep set (Zaheer et al., 2017) of an event's constituents."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitsearch.models.columns.formula import Formula
from bitsearch.models.columns.task import ColumnTask, Standardised
from bitsearch.models.tagger import RECIPES

WIDTHS = {"smoke": 16, "laptop": 64}
LENGTHS = {"smoke": 8, "laptop": 40}
accepts = Formula.parse
"""Data sets may be named by their columns."""


class Constituents(Standardised):
    """Two layers for every constituent, mean and maximum over those present, three layers for the event.

    A constituent whose features are all 0 is absent.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__(features)
        self.first, self.second = nn.Linear(features, width), nn.Linear(width, width)
        self.third, self.fourth = nn.Linear(2 * width, width), nn.Linear(width, width)
        self.head = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(batch, constituents, features)` to logits `(batch, 1)`."""
        present = (features.abs().amax(-1, keepdim=True) > 0).to(features.dtype)
        x = self.first((features - self.mean) * self.scale * present).relu()
        x = self.second(x).relu() * present
        mean = x.sum(1) / present.sum(1).clamp(min=1)
        x = self.third(torch.cat([mean, x.amax(1)], 1)).relu()
        logits: Tensor = self.head(self.fourth(x).relu())
        return logits


def task(dataset: str = "toy", preset: str = "laptop") -> ColumnTask:
    """Set up the tagger of variable-length columns."""
    return ColumnTask(
        model="constituents",
        dataset=dataset,
        preset=preset,
        build=lambda features: Constituents(features, WIDTHS[preset]),
        toys=lambda rng, events: toys(rng, events, LENGTHS[preset]),
        toy_features=("pt", "eta", "phi"),
        length=LENGTHS[preset],
        recipes=RECIPES[preset],
    )


def toys(
    rng: np.random.Generator, events: int, length: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw jets of one prong or, signal, of two, 0.4 apart; momenta in GeV, the hardest first."""
    signal = rng.random(events) < 0.5
    count = rng.integers(length // 2, length + 1, (events, 1))
    pt = np.sort(rng.exponential(10.0, (events, length)), 1)[:, ::-1]
    prong = np.where(signal[:, None], rng.integers(0, 2, (events, length)) - 0.5, 0.0) * 0.4
    plane = rng.uniform(-np.pi, np.pi, (events, 1))
    eta = prong * np.cos(plane) + rng.normal(0, 0.1, (events, length))
    phi = prong * np.sin(plane) + rng.normal(0, 0.1, (events, length))
    present = np.arange(length) < count
    features = np.stack([pt, eta, phi], -1) * present[..., None]
    return features.astype(np.float32), signal.astype(np.float32)
