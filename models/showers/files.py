"""CaloChallenge HDF5 files: check, read in chunks, write."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from bitsearch.core.errors import DataError
from bitsearch.models import reading, writing
from bitsearch.models.showers import geometry as geo
from bitsearch.models.showers.geometry import Geometry

CHUNK = 1000
EXPECTED = "a CaloChallenge HDF5 file"
# 1 keV to 1 PeV: beyond what any calorimeter is built for, and far from where float32 ends.
LEAST_MEV, MOST_MEV = 1e-3, 1e9


@dataclass(frozen=True)
class Events:
    """Incident energies `(events,)` and voxel energies `(events, voxels)`, both in MeV."""

    incident_mev: NDArray[np.floating]
    showers_mev: NDArray[np.floating]

    def __len__(self) -> int:
        return len(self.incident_mev)

    def __getitem__(self, index: slice | NDArray[np.intp]) -> "Events":
        return Events(self.incident_mev[index], self.showers_mev[index])

    def above(self, threshold_mev: float) -> "Events":
        """Set voxels below the readout threshold to 0."""
        return Events(self.incident_mev, self.showers_mev * (self.showers_mev >= threshold_mev))

    def chunks(self, size: int = CHUNK) -> Iterator["Events"]:
        """Give `size` events at a time, as views."""
        return (self[start : start + size] for start in range(0, len(self), size))


@dataclass(frozen=True)
class Label:
    """Who generated a file; official files carry none."""

    generator: str
    version: str
    seed: int
    dataset: str
    role: str


@dataclass(frozen=True)
class FileSummary:
    """What `check` found: energies in MeV, `sparsity` is the share of voxels below the readout threshold."""

    path: Path
    dataset: str
    events: int
    voxels: int
    dtype: str
    incident_range_mev: tuple[float, float]
    mean_response: float
    sparsity: float
    label: Label | None
    sha256: str


def check(path: str | Path, geometry: Geometry | None = None) -> FileSummary:
    """Read and summarise a whole file chunk by chunk; without `geometry` the voxel count tells the data set.

    Raises:
        DataError: If it is missing, truncated or foreign, or has wrong shapes, NaN or negative energies.
    """
    path = Path(path)
    geometry = geometry or identify(path)
    low, high, response, zeros, events = np.inf, 0.0, 0.0, 0, 0
    for chunk in iterate(path, geometry):
        validate(path, chunk, events)
        low, high = min(low, float(chunk.incident_mev.min())), max(high, float(chunk.incident_mev.max()))
        response += float((chunk.showers_mev.sum(axis=1, dtype=np.float64) / chunk.incident_mev).sum())
        zeros += int((chunk.showers_mev < geometry.threshold_mev).sum())
        events += len(chunk)
    with _open(path, geometry) as (_, showers):
        dtype, label = str(showers.dtype), _label(showers.file)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileSummary(
        path=path,
        dataset=geometry.dataset,
        events=events,
        voxels=geometry.voxels,
        dtype=dtype,
        incident_range_mev=(low, high),
        mean_response=response / events,
        sparsity=zeros / (events * geometry.voxels),
        label=label,
        sha256=digest,
    )


def validate(source: str | Path, events: Events, start: int = 0) -> None:
    """Refuse energies that no calorimeter sees; `source` and the number of the first event are for the message.

    Raises:
        DataError: If an incident energy is not from 1 keV to 1 PeV, or a voxel negative or above 1 PeV.
    """
    incident, showers = events.incident_mev[:, None], events.showers_mev
    for name, values, valid in (
        ("incident energy", incident, (incident >= LEAST_MEV) & (incident <= MOST_MEV)),
        ("voxel", showers, (showers >= 0) & (showers <= MOST_MEV)),
    ):
        bad = ~valid
        if bad.any():
            event, column = np.argwhere(bad)[0]
            raise DataError(
                f"{source}: event {start + event} has {name} {column} = {values[event, column]} MeV "
                f"({bad.any(axis=1).sum()} bad events among events {start} to {start + len(events) - 1}); "
                f"expected {LEAST_MEV:g} to {MOST_MEV:g} MeV for incident energies and 0 to {MOST_MEV:g} MeV for "
                "voxels; remove such events"
            )


def identify(path: str | Path) -> Geometry:
    """Tell the embedded geometry by the number of voxels.

    Raises:
        DataError: If the file cannot be read or fits no embedded geometry.
    """
    with _open(Path(path), None) as (_, showers):
        voxels = int(showers.shape[1])
    known = {item.voxels: item for item in geo.GEOMETRIES.values()}
    if voxels not in known:
        expected = ", ".join(f"{item.voxels} ({item.dataset})" for item in known.values())
        raise DataError(f"{path}: showers have {voxels} voxels; expected {expected}, or give the binning XML")
    return known[voxels]


def read(path: str | Path, geometry: Geometry, start: int = 0, stop: int | None = None) -> Events:
    """Read events `start:stop` in the file's own precision, without looking at the values.

    Raises:
        DataError: If the file is missing, truncated, foreign or of another geometry.
    """
    with _open(Path(path), geometry) as (incident, showers):
        return Events(incident[start:stop, 0], showers[start:stop])


def iterate(path: str | Path, geometry: Geometry, size: int = CHUNK) -> Iterator[Events]:
    """Read `size` events at a time; raises as `read` does."""
    with _open(Path(path), geometry) as (incident, showers):
        for start in range(0, len(showers), size):
            yield Events(incident[start : start + size, 0], showers[start : start + size])


def label(path: str | Path) -> Label | None:
    """Read who generated the file, if it says so; raises as `read` does."""
    with _open(Path(path), None) as (_, showers):
        return _label(showers.file)


def write(
    path: str | Path,
    chunks: Iterable[Events],
    geometry: Geometry,
    events: int,
    label: Label | None = None,
    dtype: DTypeLike = np.float64,
) -> None:
    """Write `events` events from `chunks` beside `path`, then rename, so that no reader meets half a file.

    Raises:
        DataError: If the chunks do not hold `events` events of this geometry, or the path cannot be written.
    """
    path = Path(path)
    with writing.hdf5(path) as file:
        file.attrs.update(asdict(label) if label else {})
        _fill(file, path, chunks, geometry, events, dtype)


def _fill(
    file: h5py.File, path: Path, chunks: Iterable[Events], geometry: Geometry, events: int, dtype: DTypeLike
) -> None:
    rows, voxels = min(CHUNK, max(events, 1)), geometry.voxels
    layout = {"dtype": dtype, "compression": "gzip"}
    incident = file.create_dataset("incident_energies", (events, 1), chunks=(rows, 1), **layout)
    showers = file.create_dataset("showers", (events, voxels), chunks=(rows, voxels), **layout)
    start = 0
    for chunk in chunks:
        stop = start + len(chunk)
        if stop > events or chunk.showers_mev.shape[1] != voxels:
            raise DataError(
                f"{path}: got showers of shape {chunk.showers_mev.shape} after {start} events; "
                f"expected {events} events of {voxels} voxels ({geometry.dataset})"
            )
        incident[start:stop, 0], showers[start:stop] = chunk.incident_mev, chunk.showers_mev
        start = stop
    if start != events:
        raise DataError(f"{path}: the chunks held {start} events; expected {events}")


@contextmanager
def _open(path: Path, geometry: Geometry | None) -> Iterator[tuple[h5py.Dataset, h5py.Dataset]]:
    """Open both data sets and check everything that shapes and types can tell."""
    with reading.hdf5(path, EXPECTED) as file:
        incident, showers = _dataset(path, file, "incident_energies"), _dataset(path, file, "showers")
        if incident.shape != (len(showers), 1) or not len(showers):
            raise DataError(
                f"{path}: incident_energies has shape {incident.shape} and showers {showers.shape}; "
                "expected (events, 1) and (events, voxels) with at least one event"
            )
        if geometry and showers.shape[1] != geometry.voxels:
            raise DataError(
                f"{path}: showers have {showers.shape[1]} voxels; "
                f"expected {geometry.voxels} ({geometry.dataset})"
            )
        yield incident, showers


def _dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """Get a two-dimensional float32 or float64 data set."""
    item = reading.dataset(path, file, name, "incident_energies and showers")
    if item.ndim != 2 or item.dtype not in (np.float32, np.float64):
        raise DataError(
            f"{path}: {name} is {item.dtype} of shape {item.shape}; expected float32 or float64 and two axes"
        )
    return item


def _label(file: h5py.File) -> Label | None:
    found = {field.name: file.attrs.get(field.name) for field in fields(Label)}
    if any(value is None for value in found.values()):
        return None
    wrong = [name for name, value in found.items() if name != "seed" and not isinstance(value, str)]
    seed = found.pop("seed")
    if wrong or not isinstance(seed, int | np.integer):
        named = f"{wrong[0]} = {found[wrong[0]]!r}" if wrong else f"seed = {seed!r}"
        raise DataError(
            f"{file.filename}: its label says {named}; expected texts and a whole seed, as written by "
            "`bitsearch data make`"
        )
    return Label(**found, seed=int(seed))
