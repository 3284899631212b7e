"""Jets of boosted W bosons as SMEFTNet reads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitsearch.models.base import Sample
from bitsearch.models.jets.dataset import load_wz
from bitsearch.models.jets.wz import WZJets

TARGET = "angle"
Columns = Mapping[str, NDArray[np.float32]]


def columns(jets: WZJets, particles: int) -> Columns:
    """Give the leading particles, zero-padded, the jet's transverse momentum and the true angle.

    `pt`, `theta`, `phi` are `(jets, particles)`, `jet_pt` `(jets, 1)` and `angle` `(jets,)`, in GeV and radians.
    """
    missing = max(0, particles - jets.pt.shape[1])
    padded = {
        name: np.pad(getattr(jets, name)[:, :particles], ((0, 0), (0, missing)))
        for name in ("pt", "theta", "phi")
    }
    return {**padded, "jet_pt": jets.jet[:, :1], TARGET: jets.decay_plane_angle}


def load(paths: Sequence[Path], particles: int, limit: int | None, held_out: float, seed: int) -> Sample:
    """Read files, or the shipped sample, and hold out a share of the jets, half for validation and half for test.

    Of each jet the leading `particles` are read; `limit` bounds the number of jets.

    Raises:
        DataError: a file is not what it should be, or has too few jets.
    """
    jets, identity = load_wz(paths, particles)
    return Sample.split(columns(jets[:limit], particles), identity, seed, held_out / 2, held_out / 2)
