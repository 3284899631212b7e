"""Jets of boosted W bosons as SMEFTNet reads them: training jets as tensors, held-out jets as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitsearch.models.jets.dataset import load_wz, split
from bitsearch.models.jets.wz import WZJets
from bitsearch.task import DataIdentity

TARGET = "angle"
Columns = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Planes:
    """`pt`, `theta`, `phi` `(jets, particles)`, `jet_pt` `(jets, 1)` and `angle` `(jets,)` in GeV and radians."""

    identity: DataIdentity
    training: Mapping[str, Tensor]
    held_out: Columns

    @property
    def events(self) -> int:
        """Number of training jets."""
        return len(self.training[TARGET])

    def to(self, device: str) -> "Planes":
        """Put the training jets on a torch device."""
        return replace(self, training={name: column.to(device) for name, column in self.training.items()})


def columns(jets: WZJets, particles: int) -> Columns:
    """Give the leading particles, zero-padded, the jet's transverse momentum and the true angle."""
    missing = max(0, particles - jets.pt.shape[1])
    padded = {
        name: np.pad(getattr(jets, name)[:, :particles], ((0, 0), (0, missing)))
        for name in ("pt", "theta", "phi")
    }
    return {**padded, "jet_pt": jets.jet[:, :1], TARGET: jets.decay_plane_angle}


def load(paths: Sequence[Path], particles: int, limit: int | None, held_out: float, seed: int) -> Planes:
    """Read files, or the shipped sample, and hold out a share of the jets, on which everything is measured.

    Of each jet the leading `particles` are read; `limit` bounds the number of jets.

    Raises:
        DataError: a file is not what it should be, or has too few jets.
    """
    jets, identity = load_wz(paths, particles)
    jets = jets[:limit]
    parts = split(len(jets), seed, held_out / 2, held_out / 2)
    training = columns(jets[parts.train], particles)
    return Planes(
        identity,
        {name: torch.from_numpy(column) for name, column in training.items()},
        columns(jets[np.concatenate([parts.validation, parts.test])], particles),
    )
