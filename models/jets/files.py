"""What the jet files have in common: labels, checks with clear errors, compact numbers, writing all or nothing.

Two forms hold the same jets: public `.npz` files, and our compact HDF5. In the latter constituents lie one jet after
the other; each column is either floats with `MANTISSA_BITS` of their mantissa (a relative error of at most 2^-12) or
16-bit multiples of the attribute `step`, with the wanted values within half a step.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self
from zipfile import is_zipfile

import h5py
import numpy as np
from numpy.typing import NDArray

from bitsearch.core.errors import DataError
from bitsearch.models import reading, writing

Arrays = Mapping[str, NDArray[Any]]
Shape = tuple[str | int, ...]

MANTISSA_BITS = 11
LAYOUT = 1
MOST_CONSTITUENTS = 10_000


@dataclass(frozen=True)
class Label:
    """Who generated a file and how; public files carry none."""

    generator: str
    version: str
    dataset: str
    seed: int
    packages: Mapping[str, str]
    settings: Mapping[str, Any]

    @property
    def software(self) -> str:
        """Name the packages with their versions."""
        return ", ".join(f"{name} {version}" for name, version in self.packages.items())


class Table:
    """Jets as arrays of one length: a base of dataclasses whose fields are arrays."""

    def __len__(self) -> int:
        return len(getattr(self, self._names()[0]))

    def __getitem__(self, index: slice | NDArray[Any]) -> Self:
        return type(self)(*(getattr(self, name)[index] for name in self._names()))

    @classmethod
    def _names(cls) -> list[str]:
        return [field.name for field in fields(cls)]  # type: ignore[arg-type]

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """Join tables, padding the constituents of all to the largest number of them."""
        return cls(*(stack([getattr(part, name) for part in parts]) for name in cls._names()))


def stack(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Concatenate along axis 0; axis 1, if there is one, is padded with zeros to the longest."""
    if arrays[0].ndim == 1:
        return np.concatenate(arrays)
    longest = max(array.shape[1] for array in arrays)
    rest = arrays[0].ndim - 2
    return np.concatenate(
        [np.pad(array, ((0, 0), (0, longest - array.shape[1]), *((0, 0),) * rest)) for array in arrays]
    )


def sorted_by_pt(columns: NDArray[Any], most: int | None = None) -> NDArray[Any]:
    """Sort the constituents (axis 1) by the first column, the largest first, and keep the leading `most`."""
    order = np.argsort(-columns[:, :, 0], axis=1, kind="stable")[:, :most]
    return np.take_along_axis(columns, order[:, :, None], axis=1)


@dataclass(frozen=True)
class Fixed:
    """Values to be stored as 16-bit multiples of `step`."""

    values: NDArray[np.floating]
    step: float


def rounded(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Round float32 values to `MANTISSA_BITS`, so that they compress."""
    drop = 23 - MANTISSA_BITS
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(1 << (drop - 1))) & np.uint32(-(1 << drop) % 2**32)).view(np.float32)


def flat(columns: NDArray[Any], counts: NDArray[np.integer]) -> NDArray[Any]:
    """Lay the first `counts` entries of each row one after the other."""
    return columns[np.arange(columns.shape[1]) < counts[:, None]]


def rows(
    path: Path, arrays: Arrays, names: Sequence[str], counts: NDArray[np.integer]
) -> dict[str, NDArray[Any]]:
    """Undo `flat`, padding with zeros.

    Raises:
        DataError: If a count is negative or no whole number, or they do not sum to the number of values.
    """
    if counts.dtype.kind not in "iu":
        raise DataError(f"{path}: counts of constituents are {counts.dtype}; expected whole numbers")
    refuse(
        path,
        "constituents",
        counts,
        (counts < 0) | (counts > MOST_CONSTITUENTS),
        f"0 to {MOST_CONSTITUENTS:,}",
    )
    counts = counts.astype(np.int64)
    if counts.sum() != len(arrays[names[0]]):
        raise DataError(
            f"{path}: the jets have {counts.sum():,} constituents; expected {len(arrays[names[0]]):,}, as there are"
        )
    width = int(counts.max(initial=0))
    filled = np.arange(width) < counts[:, None]
    found = {name: np.zeros((len(counts), width), arrays[name].dtype) for name in names}
    for name, values in found.items():
        values[filled] = arrays[name]
    return found


def read(path: Path, what: str) -> tuple[dict[str, NDArray[Any]], Label | None]:
    """Read every array of an `.npz` or a compact HDF5 file (told by content), and the label if there is one.

    `what` the file should be is for messages.

    Raises:
        DataError: If the file is missing, truncated or neither of the two.
    """
    with reading.opened(path, "npz or HDF5", what) as stored:
        if is_zipfile(path):
            arrays = reading.npz(path, stored, what)
            return arrays, _label(path, json.loads(str(arrays["meta"]))) if "meta" in arrays else None
        with h5py.File(path, "r") as file:
            if file.attrs.get("layout") != LAYOUT:
                raise DataError(f"{path}: is HDF5, but not of bitsearch's jets; expected {what}")
            label = _label(path, {name: _plain(value) for name, value in file.attrs.items()})
            return {name: _decoded(reading.dataset(path, file, name, what)) for name in file}, label


def require(path: Path, arrays: Arrays, shapes: Mapping[str, Shape]) -> None:
    """Check that finite numbers of these shapes are there; a letter stands for one size throughout.

    Raises:
        DataError: Saying which is not.
    """
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in arrays:
            raise DataError(
                f"{path}: has no {name!r} (found {', '.join(arrays) or 'nothing'}); expected {', '.join(shapes)}"
            )
        values = arrays[name]
        if values.ndim != len(shape) or any(
            size != (sizes.setdefault(expected, size) if isinstance(expected, str) else expected)
            for size, expected in zip(values.shape, shape, strict=True)
        ):
            expected = ", ".join(str(sizes.get(str(item), item)) for item in shape)
            raise DataError(f"{path}: {name} has shape {values.shape}; expected ({expected})")
        if values.dtype.kind not in "fiub":
            raise DataError(f"{path}: {name} is {values.dtype}; expected numbers")
        refuse(path, name, values, ~np.isfinite(values), "finite numbers")
    if not all(sizes.values()):
        raise DataError(f"{path}: has no jets; expected one at least")


def refuse(path: Path, name: str, values: NDArray[Any], bad: NDArray[np.bool_], expected: str) -> None:
    """Raise a DataError with the first bad value, if there is one; axis 0 counts jets."""
    if bad.any():
        first = tuple(int(index) for index in np.argwhere(bad)[0])
        raise DataError(
            f"{path}: jet {first[0]} has {name} = {values[first]:.6g} ({int(bad.sum()):,} bad values); "
            f"expected {expected}"
        )


def write_compact(path: Path, columns: Mapping[str, NDArray[Any] | Fixed], label: Label) -> None:
    """Write compact HDF5 with the label in its attributes; raises DataError if that cannot be done."""
    with writing.hdf5(path) as file:
        packages, settings = json.dumps(label.packages), json.dumps(label.settings)
        file.attrs.update(asdict(label) | {"packages": packages, "settings": settings, "layout": LAYOUT})
        for name, column in columns.items():
            values = _multiples(path, name, column) if isinstance(column, Fixed) else column
            item = file.create_dataset(
                name, data=values, compression="gzip", compression_opts=9, shuffle=True
            )
            if isinstance(column, Fixed):
                item.attrs["step"] = column.step


def write_public(path: Path, columns: Arrays, label: Label) -> None:
    """Write an `.npz` file whose entry `meta` holds the label as JSON; raises DataError if that cannot be done."""
    meta = np.array(json.dumps(asdict(label)))
    everything: dict[str, Any] = {**columns, "meta": meta}
    with writing.replacing(path) as partial:
        np.savez_compressed(partial, **everything)


def digest(path: Path) -> str:
    """Compute the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _multiples(path: Path, name: str, column: Fixed) -> NDArray[np.int16]:
    multiples: NDArray[np.floating] = np.rint(column.values / column.step)
    if np.abs(multiples).max(initial=0) > np.iinfo(np.int16).max:
        raise DataError(
            f"{path}: {name} reaches {np.abs(column.values).max():.4g}; "
            f"the compact form holds at most {np.iinfo(np.int16).max * column.step:.4g}: write .npz"
        )
    return multiples.astype(np.int16)


def _decoded(item: h5py.Dataset) -> NDArray[Any]:
    values: NDArray[Any] = item[()]
    return values * np.float32(item.attrs["step"]) if "step" in item.attrs else values


def _label(path: Path, found: Mapping[str, Any]) -> Label:
    kinds = {
        "generator": str,
        "version": str,
        "dataset": str,
        "seed": int,
        "packages": dict,
        "settings": dict,
    }
    for name, kind in kinds.items():
        if not isinstance(found.get(name), kind):
            raise DataError(
                f"{path}: its label says {name} = {found.get(name)!r}; expected {kind.__name__}, as written by "
                "`bitsearch data make`"
            )
    return Label(**{name: found[name] for name in kinds})


def _plain(value: Any) -> Any:
    """Undo what HDF5 attributes do to whole numbers and JSON."""
    if isinstance(value, str) and value.startswith("{"):
        return json.loads(value)
    return value.item() if isinstance(value, np.generic) else value
