"""Read columns by name: flat ones as `(events,)`, variable-length ones padded with zeros to `(events, length)`.

A path may name what lies inside of a file behind a colon: `events.root:tree`, `events.h5:group`. Everything here raises
DataError, with the file, what was found and what was expected.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitsearch.core.errors import ConfigurationError, DataError, one_of
from bitsearch.core.task import DataFile
from bitsearch.models import reading

Floats = NDArray[np.float32]
Reader = Callable[[Path, str, Sequence[str] | None], Mapping[str, Any]]
"""Gives the columns named, or the names of all with None, as numpy or awkward arrays."""
EXPECTED = "columns of numbers in .npz, .h5, .hdf5, .parquet or .root"
"""What an error asks for."""


def names(path: Path) -> tuple[str, ...]:
    """List the columns of a file."""
    file, inside = located(path)
    with _reading(file):
        return tuple(_reader(file)(file, inside, None))


def read(path: Path, columns: Sequence[str], length: int) -> dict[str, Floats]:
    """Read columns, each `(events,)` or `(events, length)`; longer entries are cut, shorter ones end in zeros."""
    file, inside = located(path)
    with _reading(file):
        found = _reader(file)(file, inside, columns)
        arrays = {name: _padded(found[name], length) for name in columns}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise DataError(f"{path}: column {name!r} holds {array.dtype}; expected numbers")
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(f"{path}: the columns have {sizes} entries; expected as many in each, one an event")
    numbers = {name: array.astype(np.float32) for name, array in arrays.items()}
    for name, array in numbers.items():
        if not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise DataError(
                f"{path}: column {name!r} is {array[row]} in event {row}; expected finite numbers: drop or fill them"
            )
    return numbers


def identify(role: str, path: Path, events: int) -> DataFile:
    """Describe a file by its content."""
    file, inside = located(path)
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    digest.update(inside.encode())
    return DataFile(role, path.name, events, digest.hexdigest())


def located(path: Path) -> tuple[Path, str]:
    """Part a file from what is named inside of it."""
    if not path.exists() and ":" in path.name:
        name, _, inside = path.name.rpartition(":")
        return path.with_name(name), inside
    return path, ""


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    with reading.opened(file, file.suffix.lstrip(".") or "columns", EXPECTED):
        yield


def _reader(file: Path) -> Reader:
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise DataError(f"{file}: is no file of a kind that is known; expected {EXPECTED}")
    return reader


def _npz(file: Path, inside: str, columns: Sequence[str] | None) -> Mapping[str, Any]:
    _nothing_inside(file, inside)
    found = reading.npz(file, file.stat().st_blocks * 512, EXPECTED)
    return _chosen(file, found, columns)


def _hdf5(file: Path, inside: str, columns: Sequence[str] | None) -> Mapping[str, Any]:
    import h5py

    with reading.hdf5(file, EXPECTED) as opened:
        group = opened[inside] if inside else opened
        if not isinstance(group, h5py.Group):
            raise DataError(f"{file}: {inside} is no group; expected a group of columns, one a data set")
        prefix = f"{inside}/" if inside else ""
        known = [name for name in group if isinstance(group.get(name), h5py.Dataset)]
        chosen = _chosen(file, dict.fromkeys(known), columns)
        if columns is None:
            return chosen
        return {name: reading.dataset(file, opened, prefix + name, EXPECTED)[()] for name in columns}


def _parquet(file: Path, inside: str, columns: Sequence[str] | None) -> Mapping[str, Any]:
    _nothing_inside(file, inside)
    parquet, awkward = _module("pyarrow.parquet"), _module("awkward")
    known = parquet.read_schema(file).names
    chosen = _chosen(file, dict.fromkeys(known), columns)
    if columns is None:
        return chosen
    table = parquet.read_table(file, columns=list(columns))
    return {name: awkward.from_arrow(table[name]) for name in columns}


def _root(file: Path, inside: str, columns: Sequence[str] | None) -> Mapping[str, Any]:
    with _module("uproot").open(file) as opened:
        trees = [
            name
            for name, kind in opened.classnames(cycle=False).items()
            if kind in ("TTree", "ROOT::RNTuple")
        ]
        tree = inside or (trees[0] if len(trees) == 1 else "")
        if tree not in trees:
            raise DataError(
                f"{file}: there is no tree {tree!r}; {one_of(tree, trees)}: name it as {file.name}:TREE"
            )
        chosen = _chosen(file, dict.fromkeys(opened[tree].keys()), columns)
        return chosen if columns is None else {name: opened[tree][name].array() for name in columns}


READERS: Mapping[str, Reader] = {
    ".npz": _npz,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".parquet": _parquet,
    ".root": _root,
}
"""How columns are read, by the end of a file's name."""


def _chosen(file: Path, found: Mapping[str, Any], columns: Sequence[str] | None) -> Mapping[str, Any]:
    missing = [name for name in columns or () if name not in found]
    if missing:
        raise DataError(f"{file}: has no column {missing[0]!r}; {one_of(missing[0], tuple(found))}")
    return found


def _nothing_inside(file: Path, inside: str) -> None:
    if inside:
        raise DataError(f"{file}: found the part {inside!r}; expected none in a {file.suffix} file")


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"reading this file needs {error.name}, not installed here: pip install 'bitsearch[columns]'"
        ) from error


def _padded(column: Any, length: int) -> NDArray[Any]:
    """Give `(events,)` or `(events, length)`, whether a column is numpy's or awkward's."""
    if not isinstance(column, np.ndarray):
        awkward = _module("awkward")
        if column.ndim > 1:
            column = awkward.fill_none(awkward.pad_none(column, length, axis=1, clip=True), 0)
        if awkward.any(awkward.is_none(column)):
            raise ValueError("a column has events without a value")
        column = awkward.to_numpy(column)
    if column.ndim == 1:
        return np.asarray(column)
    if column.ndim > 2:
        raise ValueError(f"a column has the shape {column.shape}, deeper than a list an event")
    cut = column[:, :length]
    return np.pad(cut, ((0, 0), (0, length - cut.shape[1])))
