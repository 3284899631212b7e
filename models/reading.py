"""Open data files without trusting what they claim: kind of file, links and sizes are checked before values are read.

Everything here raises DataError, with the file, what was found and what was expected.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile, ZipInfo
from zlib import error as DeflateError  # noqa: N812

import h5py
import numpy as np
from numpy.typing import NDArray

from bitsearch.core.errors import DataError

# What libraries raise for damaged files, and for sizes that do not fit into memory.
DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,
    NotImplementedError,
    BadZipFile,
    DeflateError,
)
# Jets padded with zeros shrink about tenfold, showers threefold; zip bombs a thousandfold.
MOST_COMPRESSED = 200
SMALL_BYTES = 16 << 20
LARGEST_CHUNK_BYTES = 128 << 20


@contextmanager
def opened(path: Path, form: str, expected: str) -> Iterator[int]:
    """Give the bytes that a file really occupies; whatever a reader raises inside becomes a DataError."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no regular file")
        # A sparse file holds less than its length.
        stored = min(status.st_size, status.st_blocks * 512)
        _require_size(path, "the file", status.st_size, stored, expected)
        yield stored
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; expected {expected}") from error
    except DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as {form} ({reason}); expected {expected}") from error


def npz(path: Path, stored: int, expected: str) -> dict[str, NDArray[Any]]:
    """Read every array of an `.npz` file that is `opened`."""
    with ZipFile(path) as archive:
        for member in archive.infolist():
            _require_size(path, member.filename, _claimed(path, archive, member, expected), stored, expected)
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return dict(arrays)


@contextmanager
def hdf5(path: Path, expected: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; its data sets are to be got through `dataset`."""
    with opened(path, "HDF5", expected), h5py.File(path, "r") as file:
        yield file


def dataset(path: Path, file: h5py.File, name: str, expected: str) -> h5py.Dataset:
    """Get a data set that lies in this very file and is no larger than what is stored of it allows."""
    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise DataError(f"{path}: {name} is a link to {link.filename!r}; expected values in the file itself")
    item = file.get(name)
    if not isinstance(item, h5py.Dataset):
        found = ", ".join(list(file)[:5]) or "nothing"
        raise DataError(f"{path}: has no data set {name!r} (found {found}); expected {expected}")
    if item.external or item.is_virtual:
        raise DataError(f"{path}: {name} is stored in other files; expected values in the file itself")
    if item.dtype.hasobject or item.shape is None:
        raise DataError(f"{path}: {name} is {item.dtype} of shape {item.shape}; expected numbers")
    if item.chunks and (chunk := prod(item.chunks) * item.dtype.itemsize) > LARGEST_CHUNK_BYTES:
        raise DataError(
            f"{path}: {name} is stored in chunks of {chunk >> 20} MB; "
            f"expected at most {LARGEST_CHUNK_BYTES >> 20} MB: write it with smaller chunks"
        )
    size = prod(item.shape) * item.dtype.itemsize
    stored = min(item.id.get_storage_size(), path.stat().st_blocks * 512)
    _require_size(path, name, size, stored, expected)
    return item


def _claimed(path: Path, archive: ZipFile, member: ZipInfo, expected: str) -> int:
    """Give the bytes of a member's array, which are those behind its header."""
    if member.flag_bits & 1:
        raise DataError(f"{path}: {member.filename} is encrypted; expected {expected}")
    with archive.open(member) as stream:
        shape, dtype = _header(stream)
        start = stream.tell()
    size = prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects, which only a pickle gives")
    if member.file_size - start != size:
        raise DataError(
            f"{path}: {member.filename} holds {member.file_size - start:,} bytes behind a header that says "
            f"{dtype} of shape {shape}; expected {size:,}"
        )
    return size


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if any(size < 0 for size in shape):
        raise ValueError(f"an array of shape {shape}")
    return shape, dtype


def _require_size(path: Path, name: str, claimed: int, stored: int, expected: str) -> None:
    if claimed > MOST_COMPRESSED * stored + SMALL_BYTES:
        raise DataError(
            f"{path}: {name} claims {claimed:,} bytes, of which {stored:,} are stored; expected {expected}"
        )
