"""Write operators in those of an older opset, or in those that more hosts compute."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

from bitsearch.core.errors import ExportError
from bitsearch.onnxfile import graph as file
from bitsearch.ops.ternary_matmul.function import OPSET_MIN

NEWEST = 20


@dataclass
class Older:
    """Nodes of an older opset in the making, with what is known of the graph's values."""

    graph: onnx.GraphProto
    opset: int
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    shapes: dict[str, list[int]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    unique: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        """Collect constants and shapes; an unknown size is -1, and has a name in `names` or none."""
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        for value in (*self.graph.input, *self.graph.value_info, *self.graph.output):
            if value.type.tensor_type.HasField("shape"):
                sizes = value.type.tensor_type.shape.dim
                self.shapes[value.name] = [d.dim_value if d.HasField("dim_value") else -1 for d in sizes]
                self.names[value.name] = [d.dim_param for d in sizes]

    def constant(self, node: onnx.NodeProto, index: int) -> list[int] | None:
        """Read a constant input as integers; None where there is no such input.

        Raises:
            ExportError: the input is not constant.
        """
        if len(node.input) <= index or not node.input[index]:
            return None
        tensor = self.constants.get(node.input[index])
        if tensor is None:
            raise ExportError(
                f"{node.op_type} {node.name!r}: found an input {index} that is computed, expected a constant"
            )
        return [int(item) for item in numpy_helper.to_array(tensor).ravel()]

    def shape(self, node: onnx.NodeProto) -> list[int]:
        """Give the first input's shape.

        Raises:
            ExportError: not even its rank is known.
        """
        name = node.input[0]
        if name in self.constants:
            return list(self.constants[name].dims)
        if name not in self.shapes:
            raise ExportError(
                f"{node.op_type} {node.name!r}: found an input of unknown rank, expected a known one"
            )
        return self.shapes[name]

    def emit(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Add a node; give its output."""
        output = output or f"lowered_{next(self.unique)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], f"{output}.node", **attributes))
        return output

    def value(self, array: Any, kind: type = np.float32) -> str:
        """Add a constant; give its name."""
        name = f"lowered_{next(self.unique)}"
        tensor = numpy_helper.from_array(np.asarray(array, kind), name)
        self.graph.initializer.append(tensor)
        self.constants[name] = tensor
        return name


def lowest_opset(model: onnx.ModelProto) -> int:
    """Find the oldest opset, from that of our functions on, that reads a model's nodes as they are written."""
    newest = file.opset(model)
    kinds = {node.op_type for scope in file.scopes(model) for node in scope.graph.node}
    # Up to opset 13 onnx's own evaluator normalises by the batch instead of the trained moments.
    oldest = OPSET_MIN + 1 if "BatchNormalization" in kinds else OPSET_MIN
    return next((version for version in range(oldest, newest) if readable(model, version)), newest)


def readable(model: onnx.ModelProto, opset: int) -> bool:
    """Tell whether an opset from 13 on reads the nodes of all graphs as they are written."""
    nodes = [node for scope in file.scopes(model) for node in scope.graph.node]
    return all(_fits(node, opset) for node in nodes if node.domain in file.STANDARD)


def lowered(graph: onnx.GraphProto, opset: int) -> None:
    """Rewrite a graph of opset 20, in place, in operators that an older opset has.

    Raises:
        ExportError: an operator has no older form here.
    """
    older = Older(graph, opset)
    missing = set()
    for node in graph.node:
        if node.op_type in REWRITES and REWRITES[node.op_type][0] > opset:
            REWRITES[node.op_type][1](older, node)
        else:
            older.nodes.append(node)
    for node in older.nodes:
        _drop_defaults(node)
        if not _fits(node, opset):
            missing.add(node.op_type)
    if missing:
        raise ExportError(f"opset {opset} has no {', '.join(sorted(missing))}; ask for a newer opset")
    del graph.node[:]
    graph.node.extend(older.nodes)


def _drop_defaults(node: onnx.NodeProto) -> None:
    """Drop attributes that say what holds without them; older opsets may not know their names."""
    if not defs.has(node.op_type, node.domain):
        return
    schema = defs.get_schema(node.op_type, NEWEST, node.domain)
    kept = [
        item
        for item in node.attribute
        if item.name not in schema.attributes
        or not schema.attributes[item.name].default_value.name
        or helper.get_attribute_value(item)
        != helper.get_attribute_value(schema.attributes[item.name].default_value)
    ]
    del node.attribute[:]
    node.attribute.extend(kept)


def _fits(node: onnx.NodeProto, opset: int) -> bool:
    try:
        schema = defs.get_schema(node.op_type, opset, node.domain)
    except defs.SchemaError:
        return False
    return (
        len(node.input) <= schema.max_input
        and len(node.output) <= schema.max_output
        and all(item.name in schema.attributes for item in node.attribute)
    )


def _reduce(older: Older, node: onnx.NodeProto) -> None:
    """Axes were an attribute."""
    given = file.attributes(node)
    axes = older.constant(node, 1)
    if not axes and given.get("noop_with_empty_axes"):
        older.emit("Identity", [node.input[0]], node.output[0])
        return
    settings = {"axes": axes} if axes else {}
    older.emit(node.op_type, [node.input[0]], node.output[0], keepdims=given.get("keepdims", 1), **settings)


def _shape(older: Older, node: onnx.NodeProto) -> None:
    """Shape had neither start nor end."""
    given = file.attributes(node)
    whole = older.emit("Shape", [node.input[0]])
    start, end = (
        older.value([given.get(name, rest)], np.int64) for name, rest in (("start", 0), ("end", 2**62))
    )
    older.emit("Slice", [whole, start, end], node.output[0])


def _pad(older: Older, node: onnx.NodeProto) -> None:
    """Pads were given for all axes."""
    axes = older.constant(node, 3)
    if axes is None:
        older.nodes.append(node)
        return
    rank, pads = len(older.shape(node)), older.constant(node, 1)
    assert pads is not None
    full = np.zeros((2, rank), np.int64)
    full[:, axes] = np.reshape(pads, (2, -1))
    inputs = [node.input[0], older.value(full.ravel(), np.int64), *([node.input[2]] if node.input[2] else [])]
    older.emit("Pad", inputs, node.output[0], mode=file.attributes(node).get("mode", b"constant"))


def _reshape(older: Older, node: onnx.NodeProto) -> None:
    """A size of zero always meant the input's own, which for an empty batch is the same."""
    older.emit("Reshape", list(node.input), node.output[0])


def _split(older: Older, node: onnx.NodeProto) -> None:
    """Sizes of equal parts were written out."""
    given = file.attributes(node)
    parts = given.pop("num_outputs", None)
    if parts is None:
        older.nodes.append(node)
        return
    size = older.shape(node)[given.get("axis", 0)]
    if size < 0:
        raise ExportError(f"Split {node.name!r}: found an axis of unknown size, expected a known one")
    step = -(-size // parts)
    sizes = older.value([min(step, size - i * step) for i in range(parts)], np.int64)
    older.nodes.append(
        helper.make_node("Split", [node.input[0], sizes], list(node.output), node.name, **given)
    )


def _gelu(older: Older, node: onnx.NodeProto) -> None:
    """X Φ(x), or its approximation by tanh."""
    (x,), half, one = node.input, older.value(0.5), older.value(1.0)
    if file.attributes(node).get("approximate", b"none") == b"tanh":
        cube = older.emit("Mul", [older.emit("Mul", [x, x]), x])
        bent = older.emit("Add", [x, older.emit("Mul", [cube, older.value(0.044715)])])
        curve = older.emit("Tanh", [older.emit("Mul", [bent, older.value(np.sqrt(2 / np.pi))])])
    else:
        curve = older.emit("Erf", [older.emit("Mul", [x, older.value(np.sqrt(0.5))])])
    gate = older.emit("Mul", [half, older.emit("Add", [curve, one])])
    older.emit("Mul", [x, gate], node.output[0])


def _gather_elements(older: Older, node: onnx.NodeProto) -> None:
    """Rows of rows along the last axis: onnx's evaluator takes at most 64 elements, SOFIE has no other form."""
    axis = file.attributes(node).get("axis", 0)
    (data, data_names), (index, index_names) = (
        (older.shapes.get(name, [])[:-1], older.names.get(name, [])[:-1]) for name in node.input
    )
    known = all(size >= 0 or name for size, name in zip(data, data_names, strict=True))
    if not data or axis not in (-1, len(data)) or (data, data_names) != (index, index_names) or not known:
        older.nodes.append(node)
        return
    places = older.emit("Unsqueeze", [node.input[1], older.value([-1], np.int64)])
    older.emit("GatherND", [node.input[0], places], node.output[0], batch_dims=len(data))


def _layer_normalization(older: Older, node: onnx.NodeProto) -> None:
    """Over the last axes: (x - mean) / sqrt(variance + epsilon) · scale + bias."""
    given = file.attributes(node)
    if any(node.output[1:]):
        raise ExportError(
            f"LayerNormalization {node.name!r}: found outputs of mean or deviation, expected none"
        )
    axis, rank = given.get("axis", -1), len(older.shape(node))
    axes = list(range(axis - rank if axis >= 0 else axis, 0))
    mean = older.emit("ReduceMean", [node.input[0]], axes=axes)
    centred = older.emit("Sub", [node.input[0], mean])
    variance = older.emit("ReduceMean", [older.emit("Mul", [centred, centred])], axes=axes)
    spread = older.emit("Sqrt", [older.emit("Add", [variance, older.value(given.get("epsilon", 1e-5))])])
    last = len(node.input) < 3 or not node.input[2]
    normal = older.emit("Div", [centred, spread])
    scaled = older.emit("Mul", [normal, node.input[1]], node.output[0] if last else "")
    if not last:
        older.emit("Add", [scaled, node.input[2]], node.output[0])


REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
REWRITES: dict[str, tuple[int, Callable[[Older, onnx.NodeProto], None]]] = {
    **{f"Reduce{name}": (18, _reduce) for name in REDUCTIONS},
    "GatherElements": (NEWEST + 1, _gather_elements),
    "Gelu": (20, _gelu),
    "LayerNormalization": (17, _layer_normalization),
    "Pad": (18, _pad),
    "Reshape": (14, _reshape),
    "Shape": (15, _shape),
    "Split": (18, _split),
}
"""Operator: the opset from which on it is left as it is, and how it is written before."""
