"""Hold files made from one original to what it puts out on data, or to labels."""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from bitsearch.core.errors import DataError, ExportError
from bitsearch.core.measurement import Metric, Quantity
from bitsearch.onnxfile import graph, inputs

ROWS = 64  # of a batch, so that few rows already make two
ERROR = Metric(
    "output_error",
    "Output error",
    "",
    "minimize",
    "|outputs - those of the original| / |outputs of the original| over all numbers and rows of the data that is "
    "measured on, with the standard error of the rows",
)
AGREEMENT = Metric(
    "agreement",
    "Agreement",
    "",
    "maximize",
    "share of rows whose largest output is the same as the original's, with its binomial standard error",
)
CROSS_ENTROPY = Metric(
    "cross_entropy",
    "Cross entropy",
    "nats",
    "minimize",
    "mean of -log p(label) over the rows, with its standard error",
)
ACCURACY = Metric(
    "accuracy",
    "Accuracy",
    "",
    "maximize",
    "share of rows whose largest output is the label's, with its binomial standard error",
)
SMALLEST = 1e-12  # probability that a logarithm is taken of

Double = NDArray[np.float64]


class Judge:
    """Outputs of an original on data, to hold other files to.

    Of data with more than one batch every second one is `seen` by whoever rounds weights, and the others are judged
    on; a single batch serves for both.
    """

    def __init__(self, original: onnx.ModelProto, data: Path, labels: Path | None = None) -> None:
        """Run the original.

        Raises:
            DataError: data or labels do not fit the model or each other, or lead to NaN or infinity.
            ExportError: onnxruntime cannot run the model.
        """
        self.data = data
        with _opened(original) as (session, _):
            self.names = [item.name for item in session.get_outputs() if item.type in FLOATS]
            if not self.names:
                found = ", ".join(f"{item.name} {item.type}" for item in session.get_outputs())
                raise DataError(f"the model puts out {found}; expected an output of floats to compare")
            count = sum(1 for _ in inputs.pieces(session, data, ROWS))
            if not count:
                raise DataError(f"{data} holds no whole batch of inputs; expected one or more")
            self.halves = count > 1
            rows: list[NDArray[np.int64]] = []
            self._expected = [list[NDArray[Any]]() for _ in self.names]
            for numbers, feed in self._pieces(session, judged=True):
                outputs = inputs.run(session, self.names, feed, data)
                for kept, output in zip(self._expected, outputs, strict=True):
                    if not np.isfinite(output).all():
                        raise DataError(
                            f"on {data} the original puts out NaN or infinity; expected inputs without"
                        )
                    kept.append(output)
                rows.append(np.array(numbers))
        self.rows = np.concatenate(rows)
        # One number a row ranks two classes, if labels say that there are classes.
        self._classes = self._ranked(least=2)
        if self._classes is None and labels is not None:
            self._classes = self._ranked(least=1)
        self.labels = None if labels is None else self._labels(labels)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is measured; the first is the default objective."""
        labelled = (CROSS_ENTROPY, ACCURACY) if self.labels is not None else ()
        return *labelled, ERROR, *((AGREEMENT,) if self._classes is not None else ())

    def seen(self, session: onnxruntime.InferenceSession) -> Iterator[inputs.Feed]:
        """Give the batches that weights may be rounded on."""
        return (feed for _, feed in self._pieces(session, judged=False))

    def measure(self, model: onnx.ModelProto) -> tuple[dict[str, Quantity], int]:
        """Measure a file that takes the same inputs; give metrics by name, and its size in bytes.

        Raises:
            DataError: it puts out NaN or infinity.
        """
        with _opened(model) as (session, size):
            outputs = [list[NDArray[Any]]() for _ in self.names]
            for _, feed in self._pieces(session, judged=True):
                for kept, output in zip(
                    outputs, inputs.run(session, self.names, feed, self.data), strict=True
                ):
                    kept.append(output)
        if not all(np.isfinite(item).all() for kept in outputs for item in kept):
            raise DataError("it puts out NaN or infinity on the data")
        found = {ERROR.name: _error(self._expected, outputs)}
        place = self._classes
        if place is not None:
            original, made = _stacked(self._expected[place]), _stacked(outputs[place])
            found[AGREEMENT.name] = _share(_choice(original) == _choice(made))
            if self.labels is not None:
                found[ACCURACY.name] = _share(_choice(made) == self.labels)
                found[CROSS_ENTROPY.name] = _mean(
                    -_logarithms(made, original)[np.arange(len(made)), self.labels]
                )
        return found, size

    def _pieces(
        self, session: onnxruntime.InferenceSession, judged: bool
    ) -> Iterator[tuple[range, inputs.Feed]]:
        for index, piece in enumerate(inputs.pieces(session, self.data, ROWS)):
            if not self.halves or index % 2 == judged:
                yield piece

    def _ranked(self, least: int) -> int | None:
        """Give the first output that has a row for every row of data, and `least` numbers in it or more."""
        for place, kept in enumerate(self._expected):
            flat = all(item.ndim in (1, 2) and np.prod(item.shape[1:]) >= least for item in kept)
            if flat and sum(map(len, kept)) == len(self.rows):
                return place
        return None

    def _labels(self, path: Path) -> NDArray[np.int64]:
        """Read one whole number a row.

        Raises:
            DataError: there are others than rows of data, or classes of the output.
        """
        place = self._classes
        if place is None:
            raise DataError(
                f"{path}: none of the outputs {', '.join(self.names)} has a row of numbers for every row of the data; "
                "expected one, to hold labels against"
            )
        labels = read_labels(path)
        if len(labels) <= self.rows.max():
            raise DataError(
                f"{path} holds {len(labels)} labels and {self.data} {self.rows.max() + 1} rows or more; "
                "expected one for every row"
            )
        width = _stacked(self._expected[place]).shape[1]
        if labels.min() < 0 or labels.max() >= width:
            raise DataError(
                f"{path} holds the labels {labels.min()} to {labels.max()}; expected 0 to {width - 1}, as "
                f"{self.names[place]} has {width} classes"
            )
        return labels[self.rows]


def read_labels(path: Path) -> NDArray[np.int64]:
    """Read labels `(rows,)` from an .npy file, or an .npz file with one array or one named `labels`.

    Raises:
        DataError: there is no such file, or it holds anything else.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}; expected an .npy or .npz file with a label for every row")
    try:
        with path.open("rb") as stream:
            stored = np.load(stream, allow_pickle=False)
            if not isinstance(stored, np.ndarray):
                name = "labels" if "labels" in stored.files or len(stored.files) != 1 else stored.files[0]
                if name not in stored.files:
                    raise ValueError(f"arrays {', '.join(stored.files) or 'none'}")
                stored = stored[name]
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read ({reason}); expected one array of labels") from error
    whole = stored.dtype.kind in "iub" or (
        stored.dtype.kind == "f" and np.isfinite(stored).all() and (stored == np.rint(stored)).all()
    )
    if not whole or not stored.size or stored.shape not in ((stored.size,), (stored.size, 1)):
        raise DataError(
            f"{path} holds {stored.dtype} of shape {stored.shape}; expected a whole number for every row, from 0 on"
        )
    return np.asarray(stored.reshape(-1), np.int64)


FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")


@contextmanager
def _opened(model: onnx.ModelProto) -> Iterator[tuple[onnxruntime.InferenceSession, int]]:
    """Open a model that is in memory, from a file of its own; give its size in bytes as well."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        graph.write(graph.copied(model), file)  # writing moves external data
        try:
            session = inputs.open_file(file)
        except ExportError as error:
            raise ExportError(str(error).replace(str(file), "the model")) from error
        yield session, graph.size_on_disk(file)


def _stacked(kept: list[NDArray[Any]]) -> Double:
    """Put batches together, `(rows, classes)`; one number a row becomes that of two classes."""
    found = np.concatenate(kept).astype(np.float64)
    found = found.reshape(len(found), -1)
    if found.shape[1] > 1:
        return found
    return np.hstack([1 - found if _are_probabilities(found) else np.zeros_like(found), found])


def _are_probabilities(found: Double) -> bool:
    inside = bool((found >= 0).all() and (found <= 1).all())
    return inside and (found.shape[1] == 1 or bool(np.allclose(found.sum(axis=1), 1, atol=1e-3)))


def _logarithms(made: Double, original: Double) -> Double:
    """Give log-probabilities; the original tells whether outputs are probabilities already or logits."""
    if _are_probabilities(original):
        return np.asarray(np.log(np.maximum(made, SMALLEST)))
    shifted = made - made.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _choice(found: Double) -> NDArray[np.int64]:
    return np.asarray(found.argmax(axis=1))


def _error(expected: list[list[NDArray[Any]]], made: list[list[NDArray[Any]]]) -> Quantity:
    """Compare all outputs, each in units of its own size, row by row."""
    rows = [
        _squares(ours, theirs) / max(float(np.concatenate([_flat(x) for x in ours]).mean()), 1e-300)
        for ours, theirs in zip(expected, made, strict=True)
    ]
    length = min(map(len, rows))
    squares = np.mean(
        [item if len(item) == length else np.full(length, item.mean()) for item in rows], axis=0
    )
    error = float(np.sqrt(squares.mean()))
    std = float(squares.std() / np.sqrt(length) / (2 * error)) if error else 0.0
    return Quantity(error, std, length)


def _flat(output: NDArray[Any]) -> Double:
    """Give the mean square of every row."""
    values = np.asarray(output, np.float64) ** 2
    return values.reshape(len(values), -1).mean(axis=1) if values.ndim and values.size else values.reshape(-1)


def _squares(ours: list[NDArray[Any]], theirs: list[NDArray[Any]]) -> Double:
    pairs = zip(ours, theirs, strict=True)
    if any(x.shape != y.shape for x, y in zip(ours, theirs, strict=True)):
        raise DataError("its outputs have other shapes than the original's")
    return np.concatenate([_flat(np.asarray(x, np.float64) - np.asarray(y, np.float64)) for x, y in pairs])


def _share(hits: NDArray[np.bool_]) -> Quantity:
    share = float(hits.mean())
    return Quantity(share, float(np.sqrt(share * (1 - share) / len(hits))), len(hits))


def _mean(values: Double) -> Quantity:
    return Quantity(float(values.mean()), float(values.std() / np.sqrt(len(values))), len(values))
