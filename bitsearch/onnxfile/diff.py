"""Hold two files beside each other: what changed in the graph, and how far outputs differ on the same inputs."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from bitsearch import ops
from bitsearch.core.errors import ConfigurationError
from bitsearch.onnxfile import graph, inputs, inspect

QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Difference:
    """How far one output of B is from A's: absolute differences over `values` numbers.

    `flips` is the share of rows whose largest number (of the last axis) is another one, None where rows have one
    number; `detail` says why nothing could be compared.
    """

    output: str
    values: int
    largest: float | None = None
    mean: float | None = None
    quantiles: Mapping[str, float] | None = None
    scale: float | None = None
    flips: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Comparison:
    """Operators whose numbers changed, layers whose precision or shape did, and differences of outputs."""

    operators: Mapping[str, tuple[int, int]]
    layers: Mapping[str, tuple[str, str]]
    bytes: tuple[int, int]
    outputs: tuple[Difference, ...]
    inner: tuple[Difference, ...]


def diff(
    a: Path,
    b: Path,
    given: Path | None = None,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    known: inputs.Known | None = None,
    rows: int = 64,
) -> Comparison:
    """Compare two files on given inputs, or on drawn ones; `inner` compares values of the same name inside.

    Raises:
        ConfigurationError: the files have no output in common, or B wants inputs that A lacks.
        ExportError: a file cannot be read.
    """
    first, second = graph.read(a), graph.read(b)
    with graph.refusals(a):
        counts = [_operators(model) for model in (first, second)]
        layers = [
            {item.name: _layer(item) for item in inspect.layer_contents(model)} for model in (first, second)
        ]
    operators = {name: (counts[0][name], counts[1][name]) for name in sorted(counts[0] | counts[1])}
    names = dict.fromkeys([*layers[0], *layers[1]])
    described = {name: (layers[0].get(name, "absent"), layers[1].get(name, "absent")) for name in names}
    sessions = [inputs.open_file(path) for path in (a, b)]
    shared = [item.name for item in sessions[0].get_outputs() if item.name in _names(sessions[1])]
    if not shared:
        raise ConfigurationError(
            f"{a} puts out {', '.join(_names(sessions[0]))} and {b} {', '.join(_names(sessions[1]))}; "
            "expected an output of the same name"
        )
    with graph.refusals(b):
        if given is not None:
            feeds = list(inputs.batches(sessions[0], given))
        else:
            batch = inputs.fixed_batch(sessions[0]) or rows
            feeds = [inputs.draw(sessions[0], batch, seed, sizes, known)]
        source = given or "drawn inputs, --inputs gives others"
        outputs = _compare(sessions, shared, feeds, source)
        inside = _inner(first, second, feeds[:1], source) if not graph.is_external(first) else ()
    return Comparison(
        {name: pair for name, pair in operators.items() if pair[0] != pair[1]},
        {name: pair for name, pair in described.items() if pair[0] != pair[1]},
        (graph.size_on_disk(a), graph.size_on_disk(b)),
        outputs,
        inside,
    )


def compare(name: str, one: list[Any], other: list[Any]) -> Difference:
    """Compare two outputs, given batch by batch."""
    if not all(isinstance(item, np.ndarray) and item.dtype.kind in "fiub" for item in (*one, *other)):
        return Difference(name, 0, detail="not compared: no numeric array")
    if any(x.shape != y.shape for x, y in zip(one, other, strict=True)):
        shapes = next((x.shape, y.shape) for x, y in zip(one, other, strict=True) if x.shape != y.shape)
        return Difference(name, 0, detail=f"not compared: shapes {shapes[0]} and {shapes[1]}")
    pairs = [(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in zip(one, other, strict=True)]
    with np.errstate(invalid="ignore"):
        off = np.concatenate([np.where(x == y, 0, np.abs(x - y)).ravel() for x, y in pairs])
    size = np.concatenate([np.abs(x).ravel() for x, _ in pairs])
    off = np.where(np.isnan(off), np.inf, off)
    if not off.size:
        return Difference(name, 0, detail="not compared: empty")
    levels = {f"{level:g}": _finite(np.quantile(off, level, method="lower")) for level in QUANTILES}
    wide = [(x, y) for x, y in pairs if x.ndim and x.shape[-1] > 1 and x.size]
    flips = [(x.argmax(-1) != y.argmax(-1)).ravel() for x, y in wide]
    return Difference(
        name,
        off.size,
        _finite(off.max()),
        _finite(off.mean()),
        {level: value for level, value in levels.items() if value is not None},
        _finite(size.mean()),
        float(np.concatenate(flips).mean()) if flips else None,
    )


def _compare(
    sessions: list[onnxruntime.InferenceSession], names: list[str], feeds: list[inputs.Feed], source: object
) -> tuple[Difference, ...]:
    results: list[list[list[NDArray[Any]]]] = [
        [inputs.run(session, names, feed, source) for feed in feeds] for session in sessions
    ]
    return tuple(
        compare(name, [found[index] for found in results[0]], [found[index] for found in results[1]])
        for index, name in enumerate(names)
    )


def _inner(
    first: onnx.ModelProto, second: onnx.ModelProto, feeds: list[inputs.Feed], source: object
) -> tuple[Difference, ...]:
    """Compare what linear layers of the main graphs put out, where values have the same name in both files."""
    made = [
        {name for node in model.graph.node for name in node.output if node.op_type in LAYERS}
        for model in (first, second)
    ]
    outside = {value.name for value in first.graph.output}
    produced = [{name for node in model.graph.node for name in node.output} for model in (first, second)]
    names = [
        name
        for node in first.graph.node
        for name in node.output
        if name and name in (made[0] | made[1]) and name in produced[1] and name not in outside
    ]
    if not names or not feeds:
        return ()
    sessions = []
    for model in (first, second):
        wide = graph.copied(model)
        del wide.graph.output[:]
        wide.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        sessions.append(ops.session(wide.SerializeToString(), sess_options=options))
    return _compare(sessions, names, feeds, source)


LAYERS = {name for _, name in inspect.WEIGHTS} | {"Add"}


def _operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(
        f"{node.domain}::{node.op_type}" if node.domain not in graph.STANDARD else node.op_type
        for scope in graph.scopes(model)
        for node in scope.nodes
    )


def _layer(item: inspect.LayerContent) -> str:
    return f"{item.op} {item.precision} {' x '.join(map(str, item.shape))}"


def _names(session: onnxruntime.InferenceSession) -> list[str]:
    return [item.name for item in session.get_outputs()]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
