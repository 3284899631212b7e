"""Small jet files made by hand."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitsearch.models.jets.files import Label
from bitsearch.models.jets.quark_gluon import PDG_IDS
from bitsearch.models.jets.wz import WZJets

LABEL = Label("a test", "0", "quark-gluon", 5, {"pythia8mc": "8.0"}, {"quark": {"a": "b"}})


def energyflow(jets: int = 12, most: int = 9, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Make X and y as the public files have them: unsorted rows, azimuths outside of [0, 2 pi), float64."""
    rng = np.random.default_rng(seed)
    table = np.zeros((jets, most, 4))
    for index, row in enumerate(table):
        number = most if index == 0 else rng.integers(2, most + 1)
        axis = rng.uniform(0, 2 * np.pi)
        pt = rng.dirichlet(np.full(number, 2)) * 530
        angles = np.array([rng.uniform(-1.5, 1.5), axis]) + rng.uniform(-0.1, 0.1, (number, 2))
        row[:number] = np.column_stack([pt, angles, rng.choice(PDG_IDS, number)])
    return {"X": table, "y": rng.permutation(np.arange(jets) % 2).astype(float)}


def wz_jets(jets: int = 12, most: int = 40, seed: int = 0) -> WZJets:
    """Make a table of plausible numbers without physics."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(2, most + 15, jets)
    real = np.arange(most) < counts[:, None]
    pt = -np.sort(-rng.exponential(10, (jets, most)) * real, axis=1)

    def draw(low: float, high: float) -> NDArray[np.float32]:
        return np.asarray(rng.uniform(low, high, (jets, most)) * real, np.float32)

    jet = np.column_stack([pt.sum(axis=1), rng.normal(size=(jets, 2)), rng.uniform(70, 110, jets)])
    return WZJets(
        pt.astype(np.float32),
        draw(0.001, 3),
        draw(-3.14, 3.14),
        draw(-0.9, 0.9),
        draw(-0.9, 0.9),
        jet.astype(np.float32),
        rng.uniform(-3.14, 3.14, jets).astype(np.float32),
        rng.uniform(-3.14, 3.14, jets).astype(np.float32),
        counts.astype(np.int32),
        rng.uniform(0, 1, (jets, 2)).astype(np.float32),
    )


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def four_vectors(rng: np.random.Generator, number: int, mass: float = 0.0) -> NDArray[np.float64]:
    momenta = rng.normal(size=(number, 3)) * 100
    return np.column_stack([momenta, np.sqrt((momenta**2).sum(axis=1) + mass**2)])
