"""Data files that are whole or not there, also where HDF5 would not outlive a full disk."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py

from bitsearch.core.errors import DataError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, and rename it at the end: no reader meets half a file.

    Raises:
        DataError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=path.parent) as folder:
            partial = Path(folder) / path.name
            yield partial
            partial.replace(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error}); expected a writable folder with space"
        ) from error


@contextmanager
def hdf5(path: Path) -> Iterator[h5py.File]:
    """Give an HDF5 file that becomes `path` at the end.

    Raises:
        DataError: If it cannot be written.
    """
    with replacing(path) as partial, _Disk(partial, "w+") as disk:
        with h5py.File(disk, "w") as file:
            yield file
        if disk.error:
            raise disk.error


class _Disk(io.FileIO):
    """A file that notes its first error and goes on: HDF5 1.14 crashes where it cannot write while it closes."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and self.error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return self.tell()

    def readinto(self, buffer: Any) -> int:
        """Read; what was not written is zeros."""
        view = memoryview(buffer).cast("B")
        found = super().readinto(view) or 0
        view[found:] = bytes(len(view) - found)
        return len(view)
