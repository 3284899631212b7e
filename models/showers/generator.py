"""Parametrised showers in the CaloChallenge format: a default data set without Geant4 and without a download.

They exercise and compare strategies; scores on them are not comparable with scores on CaloChallenge data.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import numpy as np
from numpy.random import Generator, SeedSequence, default_rng
from numpy.typing import NDArray
from platformdirs import user_cache_path

from bitsearch.core.errors import DataError
from bitsearch.core.task import Progress
from bitsearch.models.showers import electromagnetic, files, hadronic
from bitsearch.models.showers.detector import STACKS, Stack
from bitsearch.models.showers.files import CHUNK, Events, Label
from bitsearch.models.showers.geometry import embedded

Array = NDArray[np.float64]
T = TypeVar("T")

VERSION = "2"
ROLES = ("train", "reference")
DEFAULT_EVENTS = 20_000
DEFAULT_SEED = 1

# Events of an official file by incident energy 2^k MeV, k = 8 to 22.
_COMPOSITION = {
    "ds1-photon": (*(10_000,) * 11, 5_000, 3_000, 2_000, 1_000),
    "ds1-pion": (*(10_000,) * 10, 9_800, 5_000, 3_000, 2_000, 1_000),
}


def incident_energies(dataset: str, events: int, seed: int, role: str) -> Array:
    """Draw incident energies in MeV, `(events,)`: ds1 has the official composition, ds2 is log-uniform."""
    rng = default_rng(_seed(seed, dataset, role, "energies"))
    if dataset == "ds2":
        return np.exp(rng.uniform(np.log(1e3), np.log(1e6), events))
    shares = np.cumsum((0, *_COMPOSITION[dataset])) / sum(_COMPOSITION[dataset])
    counts = np.diff(np.round(shares * events).astype(int))
    return rng.permutation(np.repeat(2.0 ** np.arange(8, 23), counts))


def simulate(rng: Generator, dataset: str, incident_mev: Array, stack: Stack | None = None) -> Events:
    """Draw one shower for each incident energy; voxels below the readout threshold are 0."""
    geometry, energy = embedded(dataset), incident_mev / 1e3
    if dataset == "ds1-pion":
        voxels = 1e3 * hadronic.shower(rng, energy, geometry.layers)
    else:
        # A photon converts after 9/7 radiation lengths on average.
        start = rng.exponential(9 / 7, len(energy)) if dataset == "ds1-photon" else np.zeros(len(energy))
        voxels = 1e3 * electromagnetic.shower(rng, energy, start, geometry.layers, stack or STACKS[dataset])
    voxels[voxels < geometry.threshold_mev] = 0
    return Events(incident_mev, voxels)


def make(
    dataset: str,
    events: int,
    seed: int,
    out: str | Path,
    role: str = "train",
    workers: int | None = None,
    progress: Progress = lambda what, share: None,
) -> Path:
    """Write a file of showers; its content depends on (dataset, events, seed, role), not on `workers`.

    Raises:
        DataError: For an unknown data set, no events, a negative seed, or a path that cannot be written.
    """
    geometry = embedded(dataset)
    if events < 1 or seed < 0:
        raise DataError(f"got {events} events and seed {seed}; expected 1 event or more and a seed from 0 on")
    energies = incident_energies(dataset, events, seed, role)

    def chunk(start: int) -> Events:
        rng = default_rng(_seed(seed, dataset, role, start))
        return simulate(rng, dataset, energies[start : start + CHUNK])

    def chunks() -> Iterator[Events]:
        done = 0
        for item in _in_order(chunk, range(0, events, CHUNK), workers or os.cpu_count() or 1):
            yield item
            done += len(item)
            progress(f"generating {dataset} {role}", done / events)

    label = Label("bitsearch parametrised showers", VERSION, seed, dataset, role)
    dtype = np.float32 if dataset == "ds2" else np.float64
    files.write(out, chunks(), geometry, events, label, dtype)
    return Path(out)


def default_files(
    dataset: str,
    progress: Progress = lambda what, share: None,
    events: int = DEFAULT_EVENTS,
    seed: int = DEFAULT_SEED,
) -> tuple[Path, Path]:
    """Give independent train and reference files from the user's cache, made on first use.

    The name holds everything the content depends on. Files appear complete or not at all, so processes that
    make the same one at the same time only waste work.
    """
    folder = user_cache_path("bitsearch") / "showers"
    train, reference = (folder / f"{dataset}-v{VERSION}-seed{seed}-{events}-{role}.h5" for role in ROLES)
    for role, path in zip(ROLES, (train, reference), strict=True):
        if not path.exists():
            make(dataset, events, seed, path, role, progress=progress)
    return train, reference


def _seed(seed: int, *key: str | int) -> SeedSequence:
    """Give every stream its own counter-based seed."""
    return SeedSequence([seed, *(crc32(str(item).encode()) for item in key)])


def _in_order(function: Callable[[int], T], items: range, workers: int) -> Iterator[T]:
    """Map in threads, at most `workers` results ahead: numpy and scipy release the interpreter lock."""
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
