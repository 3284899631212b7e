"""Inputs for any ONNX file: its own task's where the file names one, else drawn to fit names, types and shapes."""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bitsearch.core.errors import ConfigurationError, DataError, ExportError
from bitsearch.onnxfile.runtime import open_session

FREE = 16  # size of a free axis that is not the batch and that nobody gave a size
KINDS = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}

Feed = dict[str, NDArray[Any]]

Known = Callable[[Mapping[str, str], int, int], Feed | None]
"""Gives realistic inputs for a file's metadata, a batch and a seed; None where it knows none."""


def open_file(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open a file with the operator library.

    Raises:
        ExportError: the file is missing, or onnxruntime refuses it.
    """
    if not path.is_file():
        raise ExportError(f"there is no file {path}; expected an ONNX model")
    try:
        return open_session(path, threads)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"onnxruntime refuses {path}: {reason}; expected a model it can run") from error


def fixed_batch(session: onnxruntime.InferenceSession) -> int | None:
    """Give the batch that the file insists on; None where it takes any, or has no inputs."""
    first = [item.shape[0] for item in session.get_inputs() if item.shape]
    return first[0] if first and isinstance(first[0], int) else None


def draw(
    session: onnxruntime.InferenceSession,
    batch: int,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    known: Known | None = None,
) -> Feed:
    """Draw inputs: floats are normal, those named after an energy log-normal and positive, integers 0 or 1.

    What `known` gives for the file's metadata is taken instead, where it fits the file's inputs.

    `sizes` gives the sizes of free axes by their names; the first axis of the first input is the batch.

    Raises:
        ConfigurationError: an input has a type that cannot be drawn, or `sizes` names no axis of the file.
    """
    inputs = session.get_inputs()
    _check_sizes(inputs, sizes or {})
    given = known(session.get_modelmeta().custom_metadata_map, batch, seed) if known else None
    if given is not None:
        found = {name: (array.ndim, array.shape[1:]) for name, array in given.items()}
        expected = {item.name: (len(item.shape), tuple(item.shape[1:])) for item in inputs}
        if found == expected:
            return given
    rng = np.random.default_rng(seed)
    symbol = next((item.shape[0] for item in inputs if item.shape), None)
    feed: Feed = {}
    for item in inputs:
        free: dict[Any, int] = {None: FREE, **(sizes or {}), symbol: batch}
        shape = [size if isinstance(size, int) else free.get(size, FREE) for size in item.shape]
        if shape and not isinstance(item.shape[0], int):
            shape[0] = batch
        feed[item.name] = _values(rng, item.name, item.type, shape)
    return feed


def load(path: Path) -> Iterator[Feed]:
    """Give the arrays of an .npz file, or of every .npz file in a folder, one file at a time.

    Raises:
        DataError: there is no such file, or it is no archive of numeric arrays.
    """
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files:
        raise DataError(
            f"the folder {path} holds no .npz file; expected one or more with an array for each input"
        )
    for file in files:
        if not file.is_file():
            raise DataError(f"there is no file {file}; expected an .npz with an array for each input")
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                if not hasattr(stored, "files"):
                    raise ValueError("a single array without a name")
                arrays = {name: stored[name] for name in stored.files}
        except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{file} cannot be read ({reason}); expected an .npz of numeric arrays"
            ) from error
        yield arrays


def fit(session: onnxruntime.InferenceSession, arrays: Feed, where: object) -> Feed:
    """Choose and cast what the file's inputs need; an only array is for an only input, whatever its name.

    Raises:
        DataError: an input is missing or has another number of axes or sizes.
    """
    wanted = session.get_inputs()
    if len(wanted) == len(arrays) == 1:
        arrays = {wanted[0].name: next(iter(arrays.values()))}
    feed: Feed = {}
    for item in wanted:
        if item.name not in arrays:
            found = ", ".join(map(repr, arrays)) or "none"
            raise DataError(f"{where} holds the arrays {found}; expected one named {item.name!r}")
        array = arrays[item.name]
        sizes = zip(item.shape, array.shape, strict=False)
        if len(item.shape) != array.ndim or any(isinstance(a, int) and a != b for a, b in sizes):
            raise DataError(
                f"{where}: {item.name} has shape {array.shape}; expected {tuple(item.shape)}, as the file declares"
            )
        kind = KINDS.get(item.type)
        feed[item.name] = array if kind is None else array.astype(kind, copy=False)
    return feed


def run(
    session: onnxruntime.InferenceSession, names: list[str] | None, feed: Feed, source: object
) -> list[Any]:
    """Run a file on inputs from `source`.

    Raises:
        DataError: onnxruntime cannot, whatever the reason.
    """
    try:
        return list(session.run(names, feed))
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(
            f"the model cannot run on {source} ({reason}); expected inputs that fit each other"
        ) from error


def batches(
    session: onnxruntime.InferenceSession, path: Path, rows: int = 256, most: int | None = None
) -> Iterator[Feed]:
    """Cut stored inputs into batches of the size that the file insists on, else of up to `rows`.

    What does not fill a fixed batch at the end of a file is left out.
    """
    return (feed for _, feed in pieces(session, path, rows, most))


def pieces(
    session: onnxruntime.InferenceSession, path: Path, rows: int = 256, most: int | None = None
) -> Iterator[tuple[range, Feed]]:
    """Give what `batches` gives, each with the numbers of its rows among the rows of all files."""
    fixed, given, before = fixed_batch(session), 0, 0
    first = next((item.name for item in session.get_inputs() if item.shape), None)
    for arrays in load(path):
        if fixed is None or first is None:
            whole = fit(session, arrays, path)
        else:
            whole = {name: np.asarray(array) for name, array in arrays.items()}
            if len(whole) == 1:
                whole = {first: next(iter(whole.values()))}
        length = len(whole[first]) if first in whole and whole[first].ndim else 1
        size = fixed or rows
        for begin in range(0, length - (size - 1 if fixed else 0), size):
            piece = {
                name: array[begin : begin + size] if array.ndim and len(array) == length else array
                for name, array in whole.items()
            }
            numbers = range(before + begin, before + min(begin + size, length))
            yield numbers, fit(session, piece, path)
            given += min(size, length - begin)
            if most is not None and given >= most:
                return
        before += length


def _values(rng: np.random.Generator, name: str, kind: str, shape: list[int]) -> NDArray[Any]:
    if kind not in KINDS:
        raise ConfigurationError(f"input {name} is a {kind}; expected one of {', '.join(KINDS)}")
    dtype = np.dtype(KINDS[kind])
    if dtype.kind != "f":
        return rng.integers(0, 2, shape).astype(dtype)
    values = rng.standard_normal(shape)
    return (np.exp(values + 10) if "energy" in name.lower() else values).astype(dtype)


def _check_sizes(inputs: list[Any], sizes: Mapping[str, int]) -> None:
    free = {size for item in inputs for size in item.shape if isinstance(size, str)}
    if unknown := sorted(set(sizes).difference(free)):
        raise ConfigurationError(
            f"the file has no free axis {', '.join(unknown)}; expected one of {', '.join(sorted(free)) or 'none'}"
        )
