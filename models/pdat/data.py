"""Quark and gluon jets as P-DAT trains on them: what is small is prepared once, the rest for each batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitsearch.core.task import DataIdentity, Progress
from bitsearch.models.base import split
from bitsearch.models.jets.dataset import load_quark_gluon
from bitsearch.models.jets.quark_gluon import QuarkGluonJets
from bitsearch.models.pdat.pair_features import Inputs, Particles, Preparation

CHUNK = 500


class Jets(NamedTuple):
    """Jets as a user has them: pT, rapidity, azimuth and PDG id, `(jets, slots)` each; and whether a quark's."""

    columns: tuple[NDArray[np.float32], ...]
    quark: NDArray[np.bool_]


@dataclass(frozen=True)
class PreparedJets:
    """Training jets as tensors, and validation and test jets as they are served.

    `particles` holds the columns of `Particles`, `(jets, particles, 13)`; `nearest` the slots of neighbours and
    `jet` the jet matrices. `quark` is 1 for quark jets.
    """

    preparation: Preparation
    identity: DataIdentity
    particles: Tensor
    nearest: Tensor
    jet: Tensor
    quark: Tensor
    validation: Jets
    test: Jets

    @property
    def events(self) -> int:
        """Number of training jets."""
        return len(self.quark)

    @property
    def held_out(self) -> "PreparedJets":
        """The same with the test jets as validation jets."""
        return replace(self, validation=self.test)

    def to(self, device: str) -> "PreparedJets":
        """Put the training jets on a torch device."""
        names = ("particles", "nearest", "jet", "quark")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def inputs(self, indices: Tensor) -> Inputs:
        """Build what the network reads of the training jets `indices`."""
        particles = Particles(*self.particles[indices].unbind(2))
        return self.preparation.inputs(particles, self.nearest[indices].long(), self.jet[indices])


def load(
    paths: Sequence[Path],
    preparation: Preparation,
    slots: int,
    most: int | None,
    seed: int,
    progress: Progress,
) -> PreparedJets:
    """Read files or the sample that comes with the package, and keep a tenth each for validation and test.

    Of all jets `most` are drawn; each keeps the `slots` constituents with the largest pT.

    Raises:
        DataError: as `bitsearch.models.jets.dataset.load_quark_gluon` and `split` do.
    """
    progress("reading jets", 0.0)
    table, identity = load_quark_gluon(paths, slots)
    if most is not None and most < len(table):
        table = table[np.sort(np.random.default_rng(seed).permutation(len(table))[:most])]
    parts = split(len(table), seed)
    training, validation, test = (
        served(table[rows], slots) for rows in (parts.train, parts.validation, parts.test)
    )
    return prepare(preparation, identity, training, validation, test, progress)


def prepare(
    preparation: Preparation,
    identity: DataIdentity,
    training: Jets,
    validation: Jets,
    test: Jets,
    progress: Progress,
) -> PreparedJets:
    """Prepare the training jets, chunk by chunk."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.no_grad():
        for start in range(0, len(training.quark), CHUNK):
            rows = (torch.from_numpy(x[start : start + CHUNK]) for x in training.columns)
            chosen = preparation.select(*rows)
            # Slots are few enough for a byte.
            closest = preparation.nearest(chosen).to(torch.uint8)
            parts.append((torch.stack(chosen, 2), closest, preparation.jet(chosen)))
            progress("preparing jets", start / len(training.quark))
    particles, nearest, jet = (torch.cat(column) for column in zip(*parts, strict=True))
    quark = torch.from_numpy(training.quark).long()
    return PreparedJets(preparation, identity, particles, nearest, jet, quark, validation, test)


def served(table: QuarkGluonJets, slots: int) -> Jets:
    """Lay jets out as the served graph takes them; constituents come sorted by pT."""
    kept = table.constituents[:, :slots]
    kept = np.pad(kept, ((0, 0), (0, slots - kept.shape[1]), (0, 0)))
    return Jets(tuple(np.ascontiguousarray(kept[:, :, column]) for column in range(4)), table.quark)
