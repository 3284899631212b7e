"""Round weights by what a layer puts out on given data, not by the weights alone.

A layer's squared error on inputs X is tr(D H Dᵀ) with D = W - scale · codes and H = XᵀX, X less its mean, which the
bias makes up for. Columns are rounded one by one and each one's error is made up for by those that follow (Frantar et
al., arXiv:2210.17323); then scales are fitted again.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from bitsearch.core.errors import DataError
from bitsearch.core.precision import Precision
from bitsearch.core.rounding import Codes, is_lossless
from bitsearch.onnxfile import graph, inputs, ternarize, upgrade
from bitsearch.onnxfile.edit import Rounded, Rounder
from bitsearch.onnxfile.linear import Array, LinearNode, examine, is_linear, layer_name

DAMPING = (
    0.01  # of the mean diagonal of H: steadies its inverse and ties what the data leaves open to the weights
)
SMALLEST = 1e-30  # mean variance that is divided by
ROUNDS = 4  # of codes for given scales and scales for given codes
COLUMNS = 128  # rounded before the columns behind learn of their errors
ROWS = 4096  # of activations in double precision at a time
PASS_BYTES = 2**30  # of moments held at once; where layers need more, the data is read again

Double = NDArray[np.float64]
Key = tuple[str, str]


@dataclass
class Moments:
    """Sums over the activations `(rows, in_features)` that a layer reads."""

    count: int
    total: Double
    squares: Double

    @classmethod
    def zeros(cls, features: int) -> "Moments":
        """Start before the first row."""
        return cls(0, np.zeros(features), np.zeros((features, features)))

    def add(self, activations: NDArray[np.generic]) -> None:
        """Add activations `(..., in_features)`."""
        rows = activations.reshape(-1, len(self.total))
        for begin in range(0, len(rows), ROWS):
            block = rows[begin : begin + ROWS].astype(np.float64)
            self.count += len(block)
            self.total += block.sum(axis=0)
            self.squares += block.T @ block

    @property
    def mean(self) -> Double:
        """Mean activations `(in_features,)`."""
        return self.total / self.count

    @property
    def hessian(self) -> Double:
        """Damped covariance `(in_features, in_features)`: half the second derivative of the mean squared error."""
        covariance = self.squares / self.count - np.outer(self.mean, self.mean)
        damping = DAMPING * max(float(np.diag(covariance).mean()), SMALLEST)
        return np.asarray(covariance + damping * np.eye(len(covariance)))


@dataclass
class _Layer:
    """Where the activations of a layer are found: the nodes of the main graph that use its weights."""

    features: int
    places: list[LinearNode] = field(default_factory=list)


def rounder(
    model: onnx.ModelProto,
    choose: Callable[[str], Precision],
    data: Path,
    batches: Callable[[onnxruntime.InferenceSession], Iterable[inputs.Feed]] | None = None,
) -> Rounder:
    """Make a rounder for the layers that `choose` quantises, from inputs in an .npz file or a folder of them.

    `batches` may give other batches of `data` than all of them.
    What is ternary already is kept exactly. Layers in branches and loops, and stacked matrices, are rounded without
    data, and say so.

    Raises:
        DataError: the data lacks an input, has another shape, holds no rows, or leads to NaN or infinity.
    """
    plain = ternarize.rounder()
    layers = _layers(model, choose)
    if not layers:
        next(inputs.load(data))  # what cannot be read is refused, needed or not
    moments: dict[Key, Moments] = {}
    for group in _groups(layers):
        moments |= _observe(model, {key: layers[key] for key in group}, data, batches)

    def round_weights(layer: str, linear: LinearNode, precision: Precision) -> Rounded:
        start = plain(layer, linear, precision)
        if precision is Precision.INT8 or is_lossless(linear.weight, start.codes, start.scale):
            return start
        seen = moments.get(_key(linear)) if linear.heads == 1 else None
        if seen is None:
            return Rounded(start.codes, start.scale, note="rounded without data")
        if not np.isfinite(seen.squares).all():
            raise DataError(f"on {data} layer {layer} reads NaN or infinity; expected inputs without")
        codes, scale = compensate(linear.weight, start.codes, start.scale, seen.hessian, precision)
        shift = (linear.weight - codes * scale[:, None].astype(np.float64)) @ seen.mean
        return Rounded(codes, scale, shift.astype(np.float32))

    return round_weights


def compensate(
    weight: Array, codes: Codes, scale: Array, hessian: Double, precision: Precision = Precision.TERNARY
) -> tuple[Codes, Array]:
    """Give codes `(out_features, in_features)` and scales `(out_features,)` of less error under the Hessian.

    Columns whose inputs vary most come first, while many are left to make up for their errors. Outputs for which
    nothing better is found keep the codes that they come with.
    """
    order = np.argsort(-np.diag(hessian), kind="stable")
    exact, codes, hessian = (
        weight[:, order].astype(np.float64),
        codes[:, order],
        hessian[np.ix_(order, order)],
    )
    inverse = np.linalg.inv(hessian)
    factor = np.asarray(np.linalg.cholesky((inverse + inverse.T) / 2).T, np.float64)
    best, best_scale = codes.copy(), scale.astype(np.float64)
    least = _errors(exact, best, best_scale, hessian)
    trial, trial_scale = codes, _fit(exact, codes, hessian, best_scale)
    for _ in range(ROUNDS):
        error = _errors(exact, trial, trial_scale, hessian)
        better = error < least
        best[better], best_scale[better], least[better] = trial[better], trial_scale[better], error[better]
        trial = _round_columns(exact, trial_scale, factor, precision)
        trial_scale = _fit(exact, trial, hessian, trial_scale)
    return best[:, np.argsort(order)], best_scale.astype(np.float32)


def _round_columns(weight: Double, scale: Double, factor: Double, precision: Precision) -> Codes:
    """Round columns in order; `factor` is the upper Cholesky factor of the inverse Hessian."""
    rest, codes = weight.copy(), np.empty(weight.shape, np.int8)
    divisor = np.where(scale > 0, scale, 1)
    for begin in range(0, rest.shape[1], COLUMNS):
        end = min(begin + COLUMNS, rest.shape[1])
        errors = np.empty((len(rest), end - begin))
        for j in range(begin, end):
            column = rest[:, j]
            if precision is Precision.BINARY:
                codes[:, j] = np.where(column < 0, -1, 1)
            else:
                codes[:, j] = np.clip(np.rint(column / divisor), -1, 1)
            errors[:, j - begin] = (column - scale * codes[:, j]) / factor[j, j]
            rest[:, j + 1 : end] -= np.outer(errors[:, j - begin], factor[j, j + 1 : end])
        rest[:, end:] -= errors @ factor[begin:end, end:]
    return codes


def _fit(weight: Double, codes: Codes, hessian: Double, otherwise: Double) -> Double:
    """Give the scales of least error, w H c / c H c; those that would not be positive stay what they were."""
    signs = codes.astype(np.float64)
    projected = signs @ hessian
    products, norms = (projected * weight).sum(axis=1), (projected * signs).sum(axis=1)
    return np.asarray(np.where(products > 0, products / np.where(norms > 0, norms, 1), otherwise), np.float64)


def _errors(weight: Double, codes: Codes, scale: Double, hessian: Double) -> Double:
    off = weight - codes * scale[:, None]
    return np.asarray(((off @ hessian) * off).sum(axis=1))


def _key(linear: LinearNode) -> Key:
    return linear.weights_name, linear.orientation


def _layers(model: onnx.ModelProto, choose: Callable[[str], Precision]) -> dict[Key, _Layer]:
    scopes = list(graph.scopes(upgrade.prepare(model)))
    uses, main = graph.uses(scopes), scopes[0]
    layers: dict[Key, _Layer] = {}
    for node in main.nodes:
        if is_linear(main, node) and choose(layer_name(main, node)).is_quantized:
            linear = examine(main, node, uses)
            if not isinstance(linear, str) and linear.heads == 1:
                layers.setdefault(_key(linear), _Layer(linear.weight.shape[1])).places.append(linear)
    return layers


def _groups(layers: dict[Key, _Layer]) -> Iterator[list[Key]]:
    """Cut the layers into groups whose moments fit into memory together."""
    group: list[Key] = []
    size = 0
    for key, layer in layers.items():
        needed = 8 * layer.features**2
        if group and size + needed > PASS_BYTES:
            yield group
            group, size = [], 0
        group.append(key)
        size += needed
    if group:
        yield group


def _observe(
    model: onnx.ModelProto,
    layers: dict[Key, _Layer],
    data: Path,
    batches: Callable[[onnxruntime.InferenceSession], Iterable[inputs.Feed]] | None,
) -> dict[Key, Moments]:
    """Run the original graph over the data with what the layers read as its outputs."""
    wide, read = upgrade.prepare(model), list[Key]()
    prefix = _free_prefix(wide)
    del wide.graph.output[:]
    for key, layer in layers.items():
        for place in layer.places:
            name = f"{prefix}{len(read)}"
            _append(wide.graph, place, name)
            wide.graph.output.append(onnx.ValueInfoProto(name=name))
            read.append(key)
    moments = {key: Moments.zeros(layer.features) for key, layer in layers.items()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "calibration.onnx"
        graph.write(wide, file)
        session = inputs.open_file(file)
        for feed in inputs.batches(session, data) if batches is None else batches(session):
            found = inputs.run(session, None, feed, data)
            for key, activations in zip(read, found, strict=True):
                moments[key].add(activations)
    if not all(item.count for item in moments.values()):
        raise DataError(f"{data} holds no whole batch of inputs; expected one or more")
    return moments


def _append(inner: onnx.GraphProto, place: LinearNode, name: str) -> None:
    """Add nodes that put out the activations of a layer, its axes in the order of the product."""
    value = place.x
    for index, step in enumerate(place.before):
        given = [value]
        for position, item in enumerate(step.inputs):
            if not isinstance(item, str):
                tensor = numpy_helper.from_array(item, f"{name}.{index}.{position}")
                inner.initializer.append(tensor)
            given.append(item if isinstance(item, str) else tensor.name)
        value = f"{name}.{index}"
        inner.node.append(helper.make_node(step.op, given, [value], **step.attributes))
    inner.node.append(helper.make_node("Identity", [value], [name]))


def _free_prefix(model: onnx.ModelProto) -> str:
    taken = {name for scope in graph.scopes(model) for name in scope.names}
    prefix = "calibration."
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    return prefix
