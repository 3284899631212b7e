"""Files that are whole or not there, whatever ends the process that writes them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".unfinished"


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """Give a stream whose content becomes `file` at the end: written, on disk, renamed, the name on disk.

    Readers and crashes see the old content or the new. Where anything fails, nothing is left behind, and what the
    system says names the file.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}{UNFINISHED}")
    try:
        with beside.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        name_file(error, file)
        raise
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_atomically(file: Path, content: str | bytes) -> None:
    """Replace the content of `file`, of any size."""
    with replacing(file) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def name_file(error: BaseException, file: Path) -> None:
    """Say which file an error of the system is about: a full disk does not."""
    if isinstance(error, OSError) and error.filename is None:
        error.filename = str(file)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left of files that they were writing."""
    for file in folder.rglob(f".*{UNFINISHED}"):
        file.unlink(missing_ok=True)
