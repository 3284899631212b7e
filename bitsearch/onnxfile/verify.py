"""Hold the `com.bithep` nodes of a file to their numpy truth: every kernel bit for bit, the function body closely."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from bitsearch import ops
from bitsearch.core.errors import BitsearchError, ExportError
from bitsearch.onnxfile import graph, inputs, truths
from bitsearch.onnxfile.graph import Scope
from bitsearch.onnxfile.truths import Truth

BODY = "function body"
FILE_BATCHES = (1, 7, 64)
AGREEMENT = 1e-3
ENOUGH = 0.5

Array = NDArray[np.float32]
Session = Any  # onnxruntime.InferenceSession, which has no types
Difference = tuple[int, int, float, bool]


@dataclass(frozen=True)
class Check:
    """Two computations of one thing: `differing` of `values` numbers, by at most `largest_difference`, relative.

    `passed` allows no difference between kernel and numpy; the function body may be off by four units in the last
    place, and by a step for every activation on a rounding edge. Such a step grows on its way through a network: of
    whole files, half of the events must agree to 1e-3 of their largest output (a correct CaloINN of paper size, all
    ternary, has 73 %, with a median difference of 1e-5). None means that nothing could be compared, for the reason
    in `detail`.
    """

    subject: str
    compared: str
    values: int
    differing: int
    largest_difference: float
    passed: bool | None
    detail: str = ""


def verify(
    path: Path,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    known: inputs.Known | None = None,
    given: Path | None = None,
) -> tuple[Check, ...]:
    """Check every `com.bithep` node of a file, then the file with the library against the file without.

    `sizes` gives the sizes of the file's free axes by their names, `known` realistic inputs (see `inputs.draw`);
    `given` is a file or folder of inputs to take instead.

    Raises:
        ExportError: the file cannot be read or holds no such node, or onnxruntime refuses it.
    """
    model = graph.read(path, chained=True)
    with graph.refusals(path):
        nodes = [
            (scope, node)
            for scope in graph.scopes(model)
            for node in scope.nodes
            if node.domain == ops.DOMAIN
        ]
        if not nodes:
            raise ExportError(
                f"{path} holds no {ops.DOMAIN} node; expected a file with ternary or binary layers"
            )
        kernels = [kernel.name for kernel in ops.kernels() if kernel.usable]
        # What lies beside a file is found from its path alone.
        whole = path if graph.is_external(model) else model
        try:
            ops.session(_source(whole), sess_options=_options())
        except Exception as error:
            raise ExportError(
                f"onnxruntime refuses {path}: {_first_line(error)}; expected a model it can run"
            ) from error
        checks = [check for scope, node in nodes for check in _verify_node(model, scope, node, kernels, seed)]
        checks += _verify_file(whole, kernels, lambda session: _feeds(session, seed, sizes, known, given))
    return tuple(checks)


def _feeds(
    session: Session,
    seed: int,
    sizes: Mapping[str, int] | None,
    known: inputs.Known | None,
    given: Path | None,
) -> list[tuple[int, inputs.Feed]]:
    """Give batches with their sizes: those of a file, or drawn."""
    if given is not None:
        feeds = list(inputs.batches(session, given, max(FILE_BATCHES), most=4 * max(FILE_BATCHES)))
        return [(next((len(item) for item in feed.values() if item.ndim), 1), feed) for feed in feeds]
    fixed = inputs.fixed_batch(session)
    batches = FILE_BATCHES if fixed is None else (fixed,)
    return [(batch, inputs.draw(session, batch, seed, sizes, known)) for batch in batches]


@contextmanager
def forced(kernel: str) -> Iterator[None]:
    """Make sessions that are opened inside use one kernel."""
    before = os.environ.get("BITSEARCH_KERNEL")
    os.environ["BITSEARCH_KERNEL"] = kernel
    try:
        yield
    finally:
        del os.environ["BITSEARCH_KERNEL"]
        if before is not None:
            os.environ["BITSEARCH_KERNEL"] = before


def _verify_node(
    model: onnx.ModelProto, scope: Scope, node: onnx.NodeProto, kernels: Sequence[str], seed: int
) -> Iterator[Check]:
    subject = node.name or node.output[0]
    try:
        truth = truths.find(model, scope, node, seed)
    except Exception as error:  # what a hostile file makes numpy raise is a result, too
        yield Check(subject, "numpy", 0, 0, 0.0, passed=False, detail=_first_line(error))
        return
    if isinstance(truth, str):
        yield Check(subject, "numpy", 0, 0, 0.0, passed=None, detail=f"left to the whole file: {truth}")
        return
    for name in kernels:
        against = partial(_against_numpy, truth, partial(_library, truth.model, name), exact=True)
        yield _attempt(subject, f"{name} = numpy", against)
    against = partial(_against_numpy, truth, partial(_plain, truth.model), exact=False)
    yield _attempt(subject, f"{BODY} = numpy", against)


def _attempt(subject: str, compared: str, compare: Callable[[], Difference]) -> Check:
    """Compare; a refusal, by onnxruntime or by numpy, is a failed check with its message."""
    try:
        return Check(subject, compared, *compare())
    except Exception as error:
        return Check(subject, compared, 0, 0, 0.0, passed=False, detail=_first_line(error))


def _against_numpy(truth: Truth, start: Callable[[], Session], exact: bool) -> Difference:
    session = start()
    values = differing = 0
    largest, passed = 0.0, True
    for feed in truth.feeds:
        outputs, limits = truth.expect(feed), truth.tolerance(feed)
        names = [item.name for item in session.get_outputs()]
        for found, expected, limit in zip(session.run(names, dict(feed)), outputs, limits, strict=False):
            if found.shape != expected.shape:
                return values, expected.size, float("inf"), False
            wrong = (found.view(np.uint32) != expected.view(np.uint32)) & ~(
                np.isnan(found) & np.isnan(expected)
            )
            values, differing = values + expected.size, differing + int(wrong.sum())
            if wrong.any():
                largest = max(largest, _relative(found[wrong], expected[wrong]))
                with np.errstate(invalid="ignore"):
                    excess = ~(np.abs(found - expected) <= limit) & ~np.isinf(limit)
                passed &= not exact and not (wrong & excess).any()
    return values, differing, largest, passed


def _verify_file(
    model: onnx.ModelProto | Path,
    kernels: Sequence[str],
    feeds: Callable[[Session], list[tuple[int, inputs.Feed]]],
) -> Iterator[Check]:
    try:
        plain = _plain(model)
    except Exception as error:
        yield Check("whole file", BODY, 0, 0, 0.0, passed=False, detail=_first_line(error))
        return
    try:
        drawn = feeds(plain)
        expected = [plain.run(None, feed) for _, feed in drawn]
    except BitsearchError:
        raise
    except Exception as error:
        detail = f"does not run on drawn inputs; --inputs or --size may help: {_first_line(error)}"
        yield Check("whole file", BODY, 0, 0, 0.0, passed=None, detail=detail)
        return
    for item, output in zip(plain.get_outputs(), expected[0] if expected else (), strict=False):
        if not _is_numeric(output):
            detail = f"{item.type}, no numeric array"
            yield Check(f"output {item.name}", BODY, 0, 0, 0.0, passed=None, detail=detail)
    if not any(_is_numeric(output) for outputs in expected for output in outputs):
        return
    for name in kernels:
        compare = partial(_compare_files, partial(_library, model, name), drawn, expected)
        yield _attempt("whole file", f"{name} = {BODY}", compare)


def _is_numeric(output: object) -> bool:
    return isinstance(output, np.ndarray) and output.dtype.kind in "fiub"


def _compare_files(
    start: Callable[[], Session],
    drawn: Sequence[tuple[int, inputs.Feed]],
    expected: Sequence[Sequence[NDArray[Any]]],
) -> Difference:
    session = start()
    values = differing = events = agreeing = 0
    largest = 0.0
    for (batch, feed), outputs in zip(drawn, expected, strict=True):
        for found, truth in zip(session.run(None, feed), outputs, strict=True):
            if not _is_numeric(truth):
                continue
            rows = batch if found.ndim and len(found) == batch else 1
            a, b = (np.asarray(item, np.float64).reshape(rows, -1) for item in (found, truth))
            wrong = (a != b) & ~(np.isnan(a) & np.isnan(b))
            values, differing, events = values + a.size, differing + int(wrong.sum()), events + rows
            size = np.maximum(np.abs(np.nan_to_num(b, posinf=0, neginf=0)).max(axis=1, initial=0), 1e-30)
            with np.errstate(invalid="ignore"):
                off = np.where(wrong, np.nan_to_num(np.abs(a - b), nan=np.inf), 0.0).max(axis=1, initial=0)
            agreeing += int((off <= AGREEMENT * size).sum())
            largest = max(largest, float((off / size).max(initial=0)))
    return values, differing, largest, agreeing >= ENOUGH * events


def _library(model: onnx.ModelProto | Path, kernel: str) -> Session:
    with forced(kernel):
        return ops.session(_source(model), sess_options=_options())


def _plain(model: onnx.ModelProto | Path) -> Session:
    return onnxruntime.InferenceSession(_source(model), _options(), providers=["CPUExecutionProvider"])


def _source(model: onnx.ModelProto | Path) -> str | bytes:
    return str(model) if isinstance(model, Path) else model.SerializeToString()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return options


def _relative(found: Array, expected: Array) -> float:
    with np.errstate(all="ignore"):
        off = np.abs(found.astype(np.float64) - expected) / np.maximum(np.abs(expected), 1e-30)
    return float(np.nan_to_num(off, nan=np.inf).max(initial=0.0))
