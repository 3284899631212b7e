"""The numpy truth of every `com.bithep` operator, with inputs that break careless code.

A new operator needs one more entry in `TRUTHS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitsearch.onnxfile.graph import Scope
from bitsearch.ops import DOMAIN, reference
from bitsearch.ops.monotone_spline.reference import parameters
from bitsearch.ops.ternary_chain.function import NAMES, ROLES

Array = NDArray[np.float32]
Feed = Mapping[str, Array]

BATCHES = (0, 1, 7)
RANDOM_ROWS = 32
SPLINES = 5
PARTICLES = 12
MESSAGE_LAYERS = ("W1", "scale1", "bias1", "W2", "scale2", "bias2")
ULPS = 4
EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Truth:
    """One node as a model of its own, what it must put out for each feed, and how far its function body may be off.

    Kernels may not be off at all.
    """

    model: onnx.ModelProto
    feeds: Sequence[Feed]
    expect: Callable[[Feed], Sequence[Array]]
    tolerance: Callable[[Feed], Sequence[Array]]


def find(model: onnx.ModelProto, scope: Scope, node: onnx.NodeProto, seed: int) -> Truth | str:
    """Prepare the check of a node; or say why it cannot be checked alone."""
    if node.op_type not in TRUTHS:
        return f"this version of bitsearch knows no numpy truth of {node.op_type}"
    return TRUTHS[node.op_type](model, scope, node, seed)


def hostile_rows(k: int, seed: int = 0) -> Array:
    """Give rows `(13, k)`: zeros, ties at .5, subnormals, extremes, infinities, NaN, many magnitudes in one."""
    rng = np.random.default_rng(seed)
    ties = np.round(rng.uniform(-127, 127, k)) + 0.5
    ties[0] = 127
    normal = rng.normal(size=k)
    one_infinite, one_nan, minus_infinite = normal.copy(), normal.copy(), normal.copy()
    one_infinite[k // 2], one_nan[k - 1], minus_infinite[0] = np.inf, np.nan, -np.inf
    rows = [
        normal,
        np.zeros(k),
        -np.zeros(k),
        ties,
        one_nan,
        normal * 1e-39,
        normal * 1e-9,
        one_infinite,
        np.full(k, 3.4e38),
        minus_infinite,
        np.full(k, -1e-45),
        normal * 1e30,
        normal * 10.0 ** rng.uniform(-30, 30, k),
    ]
    return np.stack(rows).astype(np.float32)


def _ternary_matmul(model: onnx.ModelProto, scope: Scope, node: onnx.NodeProto, seed: int) -> Truth | str:
    names = dict(zip(("W", "scale", "bias"), node.input[1:], strict=False))
    found = {role: scope.constant(name) for role, name in names.items() if name}
    constants = {role: array for role, array in found.items() if array is not None}
    if len(constants) < len(found) or not {"W", "scale"} <= constants.keys():
        return "its weights are computed at run time"
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    k, act_qmax = int(attributes.get("K", 0)), float(attributes.get("act_qmax", 127.0))
    weight, scale, bias = constants["W"], constants["scale"], constants.get("bias")

    def expect(feed: Feed) -> list[Array]:
        return [reference.ternary_matmul(feed["X"], weight, scale, bias, K=k, act_qmax=act_qmax)]

    def tolerance(feed: Feed) -> list[Array]:
        """Allow four units in the last place, and one step for every activation on a rounding edge."""
        x = feed["X"]
        with np.errstate(all="ignore"):
            gamma = np.maximum(np.abs(x).max(axis=-1, keepdims=True), reference.GAMMA_FLOOR)
            scaled = x * (np.float32(act_qmax) / gamma)
            on_edge = np.abs(scaled - np.floor(scaled) - 0.5) <= ULPS * EPSILON * act_qmax
            steps = on_edge.sum(axis=-1, keepdims=True) * np.abs(gamma / act_qmax * scale)
            sizes = np.abs(expect(feed)[0]) + 2 * np.abs(0 if bias is None else bias)
            return [np.asarray(ULPS * EPSILON * sizes + steps, np.float32)]

    rows = np.random.default_rng(seed).normal(size=(RANDOM_ROWS, k)).astype(np.float32)
    x = np.concatenate([hostile_rows(k, seed), rows])
    alone = _alone(model, node, ["X"], constants)
    return Truth(alone, [{"X": x[:batch]} for batch in (*BATCHES, len(x))], expect, tolerance)


def _ternary_chain(model: onnx.ModelProto, scope: Scope, node: onnx.NodeProto, seed: int) -> Truth | str:
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    roles = ROLES[node.op_type]
    arrays = [scope.constant(name) for name in node.input[1:]]
    if any(array is None for array in arrays):
        return "its weights are computed at run time"
    constants: dict[str, Any] = dict(zip(roles, arrays, strict=True))
    links = [
        reference.Link(
            constants[f"W{index}"],
            constants[f"scale{index}"],
            constants[f"bias{index}"],
            attributes[f"K{index}"],
            constants.get(f"gain{index}"),
            constants.get(f"shift{index}"),
        )
        for index in range(NAMES[node.op_type])
    ]
    settings: dict[str, Any] = {
        "activation": attributes["activation"].decode(),
        "alpha": attributes.get("alpha", 0.01),
        "act_qmax": attributes.get("act_qmax", 127.0),
        "epsilon": attributes.get("epsilon", 1e-5),
    }

    def expect(feed: Feed) -> list[Array]:
        with np.errstate(all="ignore"):
            return [reference.ternary_chain(feed["X"], links, **settings)]

    def tolerance(feed: Feed) -> list[Array]:
        """Allow a twentieth of the row's largest output: a step of one hidden activation grows in the layers behind."""
        largest = np.abs(expect(feed)[0]).max(axis=-1, keepdims=True, initial=0)
        return [np.broadcast_to(np.float32(0.05) * largest, expect(feed)[0].shape)]

    k = links[0].K
    rows = np.random.default_rng(seed).normal(size=(RANDOM_ROWS, k)).astype(np.float32)
    x = np.concatenate([hostile_rows(k, seed), rows])
    alone = _alone(
        model, node, ["X"], {role: array for role, array in constants.items() if array is not None}
    )
    return Truth(alone, [{"X": x[:batch]} for batch in (*BATCHES, len(x))], expect, tolerance)


def _monotone_spline(model: onnx.ModelProto, scope: Scope, node: onnx.NodeProto, seed: int) -> Truth | str:
    del scope
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    settings: dict[str, Any] = {
        name: value.decode() if isinstance(value, bytes) else value for name, value in attributes.items()
    }
    bound = settings["bound"]
    count = SPLINES * parameters(settings["kind"], settings["bins"])

    def expect(feed: Feed) -> list[Array]:
        both = reference.monotone_spline(
            feed["X"],
            feed["theta"],
            kind=settings["kind"],
            bins=settings["bins"],
            bound=bound,
            inverse=bool(settings.get("inverse", 0)),
            out_of_bounds=settings.get("out_of_bounds", "scalar"),
        )
        return [array for array, name in zip(both, node.output, strict=False) if name]

    def tolerance(feed: Feed) -> list[Array]:
        """Allow 1e-4 of the domain, for other elementary functions; anything where parameters are extreme."""
        usual = (np.abs(feed["theta"]).max(axis=-1, keepdims=True, initial=0) < 5) & (
            np.abs(feed["X"]).max(axis=-1, keepdims=True, initial=0) < 1e30
        )
        size = np.where(usual, np.float32(1e-4), np.float32(np.inf))
        both = np.broadcast_to(size * bound, feed["X"].shape), (size * 10 * SPLINES)[..., 0]
        return [array for array, name in zip(both, node.output, strict=False) if name]

    rng = np.random.default_rng(seed)
    hostile = hostile_rows(count, seed)
    theta = np.concatenate([hostile, rng.normal(size=(RANDOM_ROWS, count)).astype(np.float32)])
    x = (bound * 0.7 * rng.standard_normal((len(theta), SPLINES))).astype(np.float32)
    with np.errstate(over="ignore"):
        x[-len(hostile) :] = hostile_rows(SPLINES, seed) * (bound / 2)
    x[0, :2], x[1, :2] = (bound, -bound), (0, np.nextafter(np.float32(bound), np.float32(np.inf)))
    alone = _alone(model, node, ["X", "theta"], {})
    blocks = [{"X": x[:batch], "theta": theta[:batch]} for batch in (*BATCHES, len(x))]
    return Truth(alone, blocks, expect, tolerance)


def _message_passing(model: onnx.ModelProto, scope: Scope, node: onnx.NodeProto, seed: int) -> Truth | str:
    found = {name: scope.constant(given) for name, given in zip(MESSAGE_LAYERS, node.input[3:], strict=True)}
    constants = {name: array.astype(np.float32) for name, array in found.items() if array is not None}
    if len(constants) < len(found):
        return "its weights are computed at run time"
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    layers = [
        reference.MessageLayer(
            constants[f"W{index}"],
            constants[f"scale{index}"],
            constants[f"bias{index}"],
            attributes[f"act_qmax{index}"],
        )
        for index in (1, 2)
    ]
    squared_radius, weighted = attributes["squared_radius"], bool(attributes["weighted"])

    def expect(feed: Feed) -> list[Array]:
        settings = {"squared_radius": squared_radius, "weighted": weighted, "slope": attributes["slope"]}
        return [
            reference.message_passing(feed["pt"], feed["features"], feed["position"], *layers, **settings)
        ]

    def tolerance(feed: Feed) -> list[Array]:
        """Allow for sums of another order; for anything where values are extreme or 8 bits may round otherwise."""
        ordinary = np.abs(feed["features"]).max((1, 2), initial=0) < 100
        exact = not any(layer.act_qmax for layer in layers)
        size = 1e-4 if exact else 0.1
        allowed = np.where(ordinary, np.float32(size), np.float32(np.inf))[:, None, None]
        return [allowed * (1 + np.abs(expect(feed)[0]))]

    rng = np.random.default_rng(seed)
    size = (layers[0].weight.shape[1] - 2) // 3
    hostile = hostile_rows(PARTICLES * size, seed)
    features = np.concatenate([hostile, rng.normal(size=(RANDOM_ROWS, PARTICLES * size)).astype(np.float32)])
    pt = rng.exponential(size=(len(features), PARTICLES)).astype(np.float32)
    pt[:, ::5] = 0
    position = rng.normal(scale=squared_radius**0.5, size=(*pt.shape, 2)).astype(np.float32)
    position[0, 1] = 0
    feed = {"pt": pt, "features": features.reshape(*pt.shape, size), "position": position}
    alone = _alone(model, node, list(feed), constants)
    for value, array in zip(alone.graph.input, feed.values(), strict=True):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, [None] * array.ndim))
    feeds = [{name: array[:batch] for name, array in feed.items()} for batch in (*BATCHES, len(features))]
    return Truth(alone, feeds, expect, tolerance)


def _select_columns(model: onnx.ModelProto, scope: Scope, node: onnx.NodeProto, seed: int) -> Truth | str:
    arrays = [scope.constant(name) for name in node.input[2:]]
    if any(array is None for array in arrays):
        return "its columns are computed at run time"
    constants: dict[str, Any] = dict(zip(("index", "offset", "factor"), arrays, strict=True))
    columns = int(constants["index"].max(initial=0)) + 1

    def expect(feed: Feed) -> list[Array]:
        return [reference.select_columns(feed["A"], feed["C"], **constants)]

    x = hostile_rows(columns, seed)
    feed = {"A": x[:, : columns // 2], "C": x[:, columns // 2 :]}
    alone = _alone(model, node, list(feed), constants)
    feeds = [{name: array[:batch] for name, array in feed.items()} for batch in (*BATCHES, len(x))]
    return Truth(alone, feeds, expect, lambda feed: [np.zeros_like(expect(feed)[0])])


def _alone(
    model: onnx.ModelProto, node: onnx.NodeProto, fed: Sequence[str], constants: Mapping[str, NDArray[Any]]
) -> onnx.ModelProto:
    """Make a model of one node, with the opsets and the function bodies of the file that it is from."""
    outputs = [f"Y{index}" if name else "" for index, name in enumerate(node.output)]
    graph = helper.make_graph(
        [helper.make_node(node.op_type, [*fed, *constants], outputs, node.name, domain=DOMAIN)],
        "one_node",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", None]) for name in fed],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs if name],
        [numpy_helper.from_array(array, role) for role, array in constants.items()],
    )
    graph.node[0].attribute.extend(node.attribute)
    return helper.make_model(
        graph, opset_imports=model.opset_import, functions=model.functions, ir_version=model.ir_version
    )


TRUTHS: Mapping[str, Callable[[onnx.ModelProto, Scope, onnx.NodeProto, int], Truth | str]] = {
    "TernaryMatMul": _ternary_matmul,
    "MonotoneSpline": _monotone_spline,
    **dict.fromkeys(NAMES, _ternary_chain),
    "MessagePassing": _message_passing,
    "SelectColumns": _select_columns,
}
