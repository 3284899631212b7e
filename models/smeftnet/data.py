"""Jets of boosted W bosons as SMEFTNet reads them: training jets as tensors, the others as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitsearch.core.task import DataIdentity
from bitsearch.models.jets.dataset import load_wz, split
from bitsearch.models.jets.wz import WZJets

TARGET = "angle"
Columns = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Planes:
    """`pt`, `theta`, `phi` `(jets, particles)`, `jet_pt` `(jets, 1)` and `angle` `(jets,)` in GeV and radians.

    A search measures on the jets of `validation`; what is reported comes from those of `test`.
    """

    identity: DataIdentity
    training: Mapping[str, Tensor]
    validation: Columns
    test: Columns

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
    """Read files, or the shipped sample, and hold out a share of the jets, half for validation and half for test.

    Of each jet the leading `particles` are read; `limit` bounds the number of jets.

    Raises:
        DataError: a file is not what it should be, or has too few jets.
    """
    jets, identity = load_wz(paths, particles)
    jets = jets[:limit]
    parts = split(len(jets), seed, held_out / 2, held_out / 2)
    training, validation, test = (
        columns(jets[rows], particles) for rows in (parts.train, parts.validation, parts.test)
    )
    return Planes(
        identity, {name: torch.from_numpy(column) for name, column in training.items()}, validation, test
    )
