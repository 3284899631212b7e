"""Training, validation and reference showers of one run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitsearch.core.errors import DataError
from bitsearch.core.task import DataFile, DataIdentity, Progress
from bitsearch.models.showers import files
from bitsearch.models.showers.coarse import CoarseGeometry
from bitsearch.models.showers.files import Events, FileSummary
from bitsearch.models.showers.generator import DEFAULT_EVENTS, default_files
from bitsearch.models.showers.geometry import Geometry
from bitsearch.models.showers.normalization import Selection, normalize

TEST_SEED = 2
"""Draws the test events: the same for every seed of a run, so that runs compare on them."""
GENERATED = "Parametrised showers made by bitsearch, not Geant4 and not CaloChallenge data"


@dataclass(frozen=True)
class ShowerData:
    """Normalised showers for training and validation, and where to read the reference of the evaluation.

    `columns` and `condition` are the training events; `reference_rows` select the test events of the reference file.
    """

    geometry: Geometry
    selection: Selection
    identity: DataIdentity
    columns: Tensor
    condition: Tensor
    validation_columns: NDArray[np.float32]
    validation_condition: NDArray[np.float32]
    reference_file: Path
    reference_rows: NDArray[np.intp]

    @property
    def events(self) -> int:
        """Number of training events."""
        return len(self.columns)

    @cached_property
    def held_out(self) -> "ShowerData":
        """The same with random reference events as validation events, twice as many as those where there are."""
        wanted = 2 * len(self.validation_columns)
        rows = np.random.default_rng(TEST_SEED).permutation(self.reference_rows)[:wanted]
        table = _normalized(
            self.reference_file, self.geometry, self.selection, np.sort(rows), lambda _text, _share: None
        )
        columns, condition = (np.ascontiguousarray(part) for part in (table[:, :-1], table[:, -1:]))
        return replace(self, validation_columns=columns, validation_condition=condition)

    def to(self, device: str) -> "ShowerData":
        """Put the training events on a torch device."""
        return replace(self, columns=self.columns.to(device), condition=self.condition.to(device))

    def reference(self, limit: int, seed: int) -> Events:
        """Read up to `limit` random reference events, in file order."""
        rows = np.random.default_rng(seed).permutation(self.reference_rows)[:limit]
        return read(self.reference_file, self.geometry, np.sort(rows))


def load(
    paths: Sequence[Path],
    geometry: Geometry,
    selection: Selection,
    validation_fraction: float,
    seed: int,
    progress: Progress,
    default_events: int = DEFAULT_EVENTS,
) -> ShowerData:
    """Read a training and a reference file, one file to be halved at random, or the generated default.

    Raises:
        DataError: For more than two files, and for files that `check` refuses.
    """
    if len(paths) > 2:
        raise DataError(
            f"got {len(paths)} data files; expected a training and a reference file, one file or none"
        )
    sources = [Path(path) for path in paths] or list(
        default_files(geometry.dataset, progress, default_events)
    )
    summaries = [files.check(path, in_files(geometry)) for path in sources]
    rng = np.random.default_rng(seed)
    train_rows = rng.permutation(summaries[0].events)
    if len(sources) == 2:
        reference_rows = np.arange(summaries[1].events)
    else:
        train_rows, reference_rows = np.array_split(train_rows, 2)
    table = _normalized(sources[0], geometry, selection, np.sort(train_rows), progress)
    # In place: a second copy of 100,000 showers of ds2 would take 2.6 GB more.
    rng.shuffle(table)
    columns, condition = table[:, :-1], table[:, -1:]
    # One event alone has no spread.
    validation = max(2, int(len(table) * validation_fraction))
    if len(table) < validation + 2:
        raise DataError(
            f"{sources[0]}: {len(table)} events are left for training and validation; expected at least 4"
        )
    return ShowerData(
        geometry=geometry,
        selection=selection,
        identity=_identity(summaries, geometry),
        columns=torch.from_numpy(columns[:-validation]),
        condition=torch.from_numpy(condition[:-validation]),
        validation_columns=np.ascontiguousarray(columns[-validation:]),
        validation_condition=np.ascontiguousarray(condition[-validation:]),
        reference_file=sources[-1],
        reference_rows=np.sort(reference_rows),
    )


def in_files(geometry: Geometry) -> Geometry:
    """Give the geometry that files have, which may be finer than that of the showers."""
    return geometry.fine if isinstance(geometry, CoarseGeometry) else geometry


def iterate(path: Path, geometry: Geometry) -> Iterator[Events]:
    """Read showers chunk by chunk, summed to `geometry` where that is coarser than the file's."""
    for chunk in files.iterate(path, in_files(geometry)):
        yield geometry.merge(chunk) if isinstance(geometry, CoarseGeometry) else chunk


def _normalized(
    path: Path, geometry: Geometry, selection: Selection, rows: NDArray[np.intp], progress: Progress
) -> NDArray[np.float32]:
    """Normalise the events `rows` chunk by chunk; the condition is the last column."""
    table = np.empty((len(rows), geometry.voxels + len(geometry.layers) + 1), np.float32)
    start = filled = 0
    for chunk in iterate(path, geometry):
        first, last = np.searchsorted(rows, [start, start + len(chunk)])
        columns, condition = normalize(chunk[rows[first:last] - start], geometry, selection)
        stop = filled + len(columns)
        table[filled:stop, :-1], table[filled:stop, -1:] = columns, condition
        start, filled = start + len(chunk), stop
        progress("reading showers", last / len(rows))
    return table[:filled]


def read(path: Path, geometry: Geometry, rows: NDArray[np.intp]) -> Events:
    """Read the events `rows`, which ascend."""
    parts: list[Events] = []
    start = 0
    for chunk in iterate(path, geometry):
        first, last = np.searchsorted(rows, [start, start + len(chunk)])
        parts.append(chunk[rows[first:last] - start])
        start += len(chunk)
    return Events(
        np.concatenate([part.incident_mev for part in parts]),
        np.concatenate([part.showers_mev for part in parts]),
    )


def _identity(summaries: Sequence[FileSummary], geometry: Geometry) -> DataIdentity:
    generated = any(summary.label is not None for summary in summaries)
    names = [summary.path.name for summary in summaries]
    roles = ["train", "reference"] if len(summaries) == 2 else ["train and reference (halved at random)"]
    described = ", ".join(
        f"{name} ({summary.events:,} events, {role})"
        for name, summary, role in zip(names, summaries, roles, strict=True)
    )
    if isinstance(geometry, CoarseGeometry):
        described += f"; voxels summed to {geometry.grid}"
    statement = f"{GENERATED}: {described}." if generated else f"Files given by the user: {described}."
    entries = (
        DataFile(role, summary.path.name, summary.events, summary.sha256)
        for role, summary in zip(roles, summaries, strict=True)
    )
    return DataIdentity(generated, statement, tuple(entries))
