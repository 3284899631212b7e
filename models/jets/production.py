"""Make a data set chunk by chunk in parallel processes; what was made before an interruption is kept."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import crc32
from zlib import error as DeflateError  # noqa: N812

import numpy as np
from numpy.random import SeedSequence
from numpy.typing import NDArray

from bitsearch.core.errors import DataError
from bitsearch.core.processes import processes
from bitsearch.core.task import Progress
from bitsearch.models.jets import pythia
from bitsearch.models.jets.files import Label

Arrays = dict[str, NDArray[Any]]
CHUNK = 500


@dataclass(frozen=True)
class Chunk:
    """Jets that one process makes at a time, and Pythia's seed for them."""

    process: str
    number: int
    jets: int
    seed: int


def chunks(process: str, jets: int, seed: int) -> tuple[Chunk, ...]:
    """Divide the jets of a process; every chunk gets a seed that (`seed`, process, number) determine."""

    def derive(number: int) -> int:
        words = SeedSequence([seed, crc32(process.encode()), number]).generate_state(1)
        return 1 + int(words[0]) % pythia.SEEDS

    return tuple(
        Chunk(process, number, min(CHUNK, jets - start), derive(number))
        for number, start in enumerate(range(0, jets, CHUNK))
    )


def make(
    generate: Callable[[Chunk], Arrays],
    wanted: Sequence[Chunk],
    label: Label,
    out: Path,
    write: Callable[[list[Arrays]], None],
    workers: int | None,
    progress: Progress,
) -> None:
    """Generate chunks into a folder beside `out`, `write` them in the order wanted, and remove the folder.

    Chunks found there are taken if they have the same label (version, settings, seed), so that a production goes
    on where it was interrupted.

    Raises:
        DataError: If the folder cannot be written, or a process dies.
    """
    folder = out.with_name(f".{out.name}.parts")
    paths = {chunk: folder / f"{chunk.process}-{chunk.number}.npz" for chunk in wanted}
    try:
        if out.is_dir():
            raise IsADirectoryError("it is a folder")
        folder.mkdir(parents=True, exist_ok=True)
        missing = [chunk for chunk, path in paths.items() if _read(path, label, chunk) is None]
        total, left = sum(chunk.jets for chunk in wanted), sum(chunk.jets for chunk in missing)
        progress(f"generating {label.dataset}", 1 - left / total)
        for chunk in _each(
            partial(_make_one, generate, label, paths), missing, workers or os.cpu_count() or 1
        ):
            left -= chunk.jets
            progress(f"generating {label.dataset}", 1 - left / total)
        parts = [_read(path, label, chunk) for chunk, path in paths.items()]
        write([part for part in parts if part is not None])
        shutil.rmtree(folder)
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error}); expected a writable folder with space"
        ) from error


def _each(task: Callable[[Chunk], Chunk], todo: Sequence[Chunk], workers: int) -> Iterable[Chunk]:
    """Run in fresh processes, in no order."""
    if not todo:
        return
    try:
        with processes(min(workers, len(todo)), pythia.silence) as executor:
            for done in as_completed([executor.submit(task, chunk) for chunk in todo]):
                yield done.result()
    except BrokenProcessPool as error:
        raise DataError(
            f"one of {workers} generating processes died; run the same again to go on where it stopped"
        ) from error


def _make_one(
    generate: Callable[[Chunk], Arrays], label: Label, paths: Mapping[Chunk, Path], chunk: Chunk
) -> Chunk:
    path = paths[chunk]
    partial_path = path.with_suffix(f".{os.getpid()}")
    arrays: dict[str, Any] = {**generate(chunk), "_about": np.array(_about(label, chunk))}
    with partial_path.open("wb") as file:
        np.savez(file, **arrays)
    partial_path.replace(path)
    return chunk


def _read(path: Path, label: Label, chunk: Chunk) -> Arrays | None:
    """Read a finished chunk; None if there is none, or one with another label."""
    try:
        with path.open("rb") as stream, np.load(stream) as npz:
            arrays = dict(npz)
    except (FileNotFoundError, BadZipFile, ValueError, EOFError, DeflateError):
        return None
    return arrays if str(arrays.pop("_about", "")) == _about(label, chunk) else None


def _about(label: Label, chunk: Chunk) -> str:
    return json.dumps([asdict(label), asdict(chunk)], sort_keys=True)
