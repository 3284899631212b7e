"""Give a file one order of operations: the same bits from every kernel, number of threads, batch and onnxruntime.

What onnxruntime computes in floats in an order of its own becomes the operator of `com.bithep` of the same name
(ops/reproducible/README.md); what has one exact result stays; anything else is refused.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from bitsearch.core.errors import ExportError
from bitsearch.onnxfile import graph as file
from bitsearch.onnxfile.graph import STANDARD, Scope, lowest_ir_version
from bitsearch.ops import DOMAIN, OperatorError, add_functions
from bitsearch.ops.reproducible.function import ATTRIBUTES, INPUTS

# One result each: integers and choices, or one rounding a number.
EXACT = frozenset(
    (
        *("Abs", "Add", "Ceil", "Div", "Floor", "HardSigmoid", "LeakyRelu", "Mul", "Neg"),
        *("PRelu", "Relu", "Round", "Sign", "Sub", "ThresholdedRelu"),
        *("And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual"),
        *("Not", "Or", "Where", "Xor", "BitShift", "BitwiseAnd", "Mod"),
        *("ArgMax", "ArgMin", "Clip", "Max", "Min", "NonZero", "ReduceMax", "ReduceMin", "TopK"),
        *("Cast", "CastLike", "Constant", "ConstantOfShape", "EyeLike", "OneHot", "Range"),
        *("Compress", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather"),
        *("GatherElements", "GatherND", "Identity", "Pad", "Reshape"),
        *("ScatterElements", "ScatterND", "Shape", "Size", "Slice", "Split"),
        *("Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze"),
        *("If", "Loop", "Scan"),
    )
)
FLOAT = TensorProto.FLOAT
Array = NDArray[np.generic]


@dataclass
class Writer:
    """Nodes of a graph in the making, with what is known of its values."""

    scope: Scope
    main: onnx.GraphProto
    shapes: dict[str, list[int]]
    types: dict[str, int]
    unique: Iterator[int]
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def emit(
        self, kind: str, inputs: list[str], output: str = "", domain: str = "", **attributes: Any
    ) -> str:
        """Add a node; give its output."""
        output = output or f"ordered_{next(self.unique)}"
        name = f"{kind}_ordered_{next(self.unique)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name, domain=domain, **attributes))
        return output

    def value(self, array: object, kind: type = np.float32) -> str:
        """Add a constant to the main graph; give its name."""
        name = f"ordered_{next(self.unique)}"
        self.main.initializer.append(numpy_helper.from_array(np.asarray(array, kind), name))
        return name

    def constant(self, node: onnx.NodeProto, index: int) -> Array | None:
        """Read an input; None where it is absent or computed."""
        name = node.input[index] if index < len(node.input) else ""
        return self.scope.constant(name) if name else None

    def rank(self, node: onnx.NodeProto, index: int = 0) -> int | None:
        """Count the axes of an input, where they are known."""
        array = self.constant(node, index)
        if array is not None:
            return array.ndim
        shape = self.shapes.get(node.input[index])
        return None if shape is None else len(shape)


def reproducible(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give the same computation with one order of operations, under the same names.

    Raises:
        ExportError: a node computes floats in an order of its own and has no reproducible form.
    """
    model = file.copied(model)
    unique = count()
    shapes, types = _known(model)
    with suppress(Exception):  # what onnx cannot infer is refused below, where it matters
        shapes, types = _known(shape_inference.infer_shapes(model))
    for scope in reversed(list(file.scopes(model))):  # bodies first: nodes around them are copied
        writer = Writer(scope, model.graph, shapes, types, unique)
        for node in scope.graph.node:
            _rewrite(writer, node)
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in writer.nodes]
        del scope.graph.node[:]
        scope.graph.node.extend(nodes)
    foreign = sorted({item.name for item in model.functions if item.domain != DOMAIN})
    if foreign:
        raise ExportError(
            f"found the local functions {', '.join(foreign)}, expected none: export without functions"
        )
    try:
        add_functions(model)
    except OperatorError as error:
        raise ExportError(f"{error}; export the network again with a newer opset") from error
    model.ir_version = lowest_ir_version(model)
    return model


def _rewrite(writer: Writer, node: onnx.NodeProto) -> None:
    """Write one node in its reproducible form."""
    if node.domain == DOMAIN or (node.domain in STANDARD and node.op_type in EXACT):
        writer.nodes.append(node)
    elif node.domain not in STANDARD:
        raise _refusal(node, f"{node.domain} has an order of its own")
    elif node.op_type.startswith(("Reduce", "CumSum")) and _integer(writer, node):
        writer.nodes.append(node)
    elif node.op_type in REWRITES:
        REWRITES[node.op_type](writer, node)
    elif node.op_type in INPUTS:
        _same(writer, node)
    else:
        raise _refusal(node, "it has no reproducible form")


def _refusal(node: onnx.NodeProto, why: str) -> ExportError:
    return ExportError(
        f"{node.op_type} {node.name!r} cannot be made reproducible: {why}; leave out --reproducible, or write the "
        f"network with {', '.join(sorted(INPUTS))}"
    )


def _integer(writer: Writer, node: onnx.NodeProto) -> bool:
    return writer.types.get(node.input[0], FLOAT) != FLOAT


def _same(writer: Writer, node: onnx.NodeProto) -> None:
    """Let the operator of the same name in our domain do it."""
    if _integer(writer, node):
        raise _refusal(
            node, f"its input is no float32 but {helper.tensor_dtype_to_string(writer.types[node.input[0]])}"
        )
    given, kept = file.attributes(node), ATTRIBUTES.get(node.op_type, {})
    writer.emit(
        node.op_type,
        list(node.input),
        node.output[0],
        DOMAIN,
        **{name: value for name, value in given.items() if name in kept},
    )
    writer.nodes[-1].name = node.name
    writer.nodes[-1].metadata_props.extend(node.metadata_props)


def _gemm(writer: Writer, node: onnx.NodeProto) -> None:
    given = file.attributes(node)
    shape = writer.constant(node, 2)
    if given.get("alpha", 1.0) != 1 or given.get("beta", 1.0) != 1 or given.get("transA", 0):
        raise _refusal(node, f"found {given}, expected alpha and beta 1 and A as it is")
    if len(node.input) > 2 and node.input[2] and (shape is None or shape.ndim == 1):
        _same(writer, node)
        return
    b = node.input[1]
    if given.get("transB", 0):
        b = writer.emit("Transpose", [b], perm=[1, 0])
    bare = len(node.input) < 3 or not node.input[2]
    y = writer.emit("MatMul", [node.input[0], b], node.output[0] if bare else "", DOMAIN)
    if not bare:
        writer.emit("Add", [y, node.input[2]], node.output[0])


def _matmul(writer: Writer, node: onnx.NodeProto) -> None:
    """A vector is written as a matrix, whose axis goes again."""
    a, b = node.input
    ranks = writer.rank(node), writer.rank(node, 1)
    if 1 not in ranks:
        _same(writer, node)
        return
    axes = [writer.value([axis], np.int64) for axis, rank in zip((0, 1), ranks, strict=True) if rank == 1]
    if ranks[0] == 1:
        a = writer.emit("Unsqueeze", [a, axes[0]])
    if ranks[1] == 1:
        b = writer.emit("Unsqueeze", [b, axes[-1]])
    y = writer.emit("MatMul", [a, b], "", DOMAIN)
    gone = [axis for axis, rank in zip((-2, -1), ranks, strict=True) if rank == 1]
    writer.emit("Squeeze", [y, writer.value(gone, np.int64)], node.output[0])


def _softmax(writer: Writer, node: onnx.NodeProto) -> None:
    axis, rank = file.attributes(node).get("axis", -1), writer.rank(node)
    if axis != -1 and rank is not None and axis % rank != rank - 1:
        swapped = [*range(rank)]
        swapped[axis % rank], swapped[-1] = swapped[-1], swapped[axis % rank]
        turned = writer.emit("Transpose", [node.input[0]], perm=swapped)
        y = writer.emit("Softmax", [turned], "", DOMAIN, axis=-1)
        writer.emit("Transpose", [y], node.output[0], perm=swapped)
        return
    _same(writer, node)


def _layer_normalization(writer: Writer, node: onnx.NodeProto) -> None:
    given, rank = file.attributes(node), writer.rank(node)
    if any(node.output[1:]) or given.get("stash_type", 1) != 1:
        raise _refusal(node, "it gives mean or deviation too, or computes in another precision")
    axis = given.get("axis", -1)
    if axis != -1 and rank is not None and axis % rank != rank - 1:
        raise _refusal(node, f"found axis {axis}, expected the last one")
    if len(node.input) < 3 or not node.input[2]:
        scale = writer.constant(node, 1)
        if scale is None:
            raise _refusal(node, "it has no bias and a computed scale")
        del node.input[2:]
        node.input.append(writer.value(np.zeros_like(scale)))
    _same(writer, node)


def _reduce_sum(writer: Writer, node: onnx.NodeProto) -> None:
    """Sum over neighbouring axes; others one after the other."""
    given = file.attributes(node)
    axes = _axes(writer, node)
    if not axes and given.get("noop_with_empty_axes", 0):
        writer.emit("Identity", [node.input[0]], node.output[0])
        return
    keepdims = given.get("keepdims", 1)
    _sum(writer, node, axes, node.output[0], keepdims)


def _sum(writer: Writer, node: onnx.NodeProto, axes: list[int], output: str, keepdims: int) -> None:
    if not axes or len(axes) > 1:
        rank = writer.rank(node)
        if rank is None:
            raise _refusal(node, "it sums over several axes of a value of unknown rank")
        axes = sorted(axis % rank for axis in axes) if axes else [*range(rank)]
    groups: list[list[int]] = []
    for axis in axes:
        if groups and axis == groups[-1][-1] + 1:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    x = node.input[0]
    for index, group in enumerate(reversed(groups)):  # from behind, so that axes keep their numbers
        last = index == len(groups) - 1
        axes_value = writer.value(group, np.int64)
        x = writer.emit("ReduceSum", [x, axes_value], output if last else "", DOMAIN, keepdims=keepdims)


def _reduce_mean(writer: Writer, node: onnx.NodeProto) -> None:
    axes, shape = _axes(writer, node), writer.shapes.get(node.input[0])
    rank = writer.rank(node)
    sizes = [] if shape is None or rank is None else [shape[axis] for axis in (axes or range(rank))]
    if not sizes or min(sizes) <= 0:
        raise _refusal(node, "it takes the mean over an axis of unknown size")
    total = f"ordered_{next(writer.unique)}"
    _sum(writer, node, axes, total, file.attributes(node).get("keepdims", 1))
    writer.emit("Div", [total, writer.value(float(np.prod(sizes)))], node.output[0])


def _axes(writer: Writer, node: onnx.NodeProto) -> list[int]:
    given = file.attributes(node).get("axes")
    if given is None and len(node.input) > 1 and node.input[1]:
        given = writer.constant(node, 1)
        if given is None:
            raise _refusal(node, "its axes are computed")
    return [] if given is None else [int(axis) for axis in np.ravel(given)]


def _pow(writer: Writer, node: onnx.NodeProto) -> None:
    """Whole powers up to 4 are products, a half is a root."""
    exponent = writer.constant(node, 1)
    power = None if exponent is None or exponent.size != 1 else float(exponent.item())
    x = node.input[0]
    if power == 0.5:
        writer.emit("Sqrt", [x], node.output[0], DOMAIN)
    elif power in (2, 3, 4):
        square = writer.emit("Mul", [x, x], node.output[0] if power == 2 else "")
        if power != 2:
            writer.emit("Mul", [square, x if power == 3 else square], node.output[0])
    else:
        raise _refusal(node, f"found the exponent {power}, expected 0.5, 2, 3 or 4")


def _batch_normalization(writer: Writer, node: onnx.NodeProto) -> None:
    """Multiply and add what follows from constants."""
    parameters, rank = [writer.constant(node, index) for index in range(1, 5)], writer.rank(node)
    if any(item is None for item in parameters) or rank is None or any(node.output[1:]):
        raise _refusal(node, "its parameters are computed, or its input has no known rank")
    scale, bias, mean, variance = (np.asarray(item, np.float64) for item in parameters)
    gain = scale / np.sqrt(variance + file.attributes(node).get("epsilon", 1e-5))
    shape = (-1, *[1] * (rank - 2))
    gains, offsets = (writer.value(item.reshape(shape)) for item in (gain, bias - mean * gain))
    writer.emit("Add", [writer.emit("Mul", [node.input[0], gains]), offsets], node.output[0])


def _conv(writer: Writer, node: onnx.NodeProto) -> None:
    """Multiply the kernel, as a matrix, with the shifted inputs, one below the other."""
    given, weight, shape = file.attributes(node), writer.constant(node, 1), writer.shapes.get(node.input[0])
    plain = (
        weight is not None
        and given.get("group", 1) == 1
        and given.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and {*given.get("strides", [1]), *given.get("dilations", [1])} == {1}
    )
    if not plain or weight is None or shape is None or min(shape[1:]) <= 0:
        raise _refusal(node, "expected constant weights, known sizes, one group, strides and dilations of 1")
    axes = weight.ndim - 2
    pads = given.get("pads", [0] * 2 * axes)
    x = node.input[0]
    if any(pads):
        x = writer.emit("Pad", [x, writer.value([0, 0, *pads[:axes], 0, 0, *pads[axes:]], np.int64)])
    kernel = weight.shape[2:]
    sizes = [
        size + pads[i] + pads[axes + i] - kernel[i] + 1 for i, size in enumerate(shape[2:])
    ]  # of the output
    places = writer.value([*range(2, 2 + axes)], np.int64)
    parts = []
    for offset in np.ndindex(*kernel):
        ends = [start + size for start, size in zip(offset, sizes, strict=True)]
        parts.append(
            writer.emit("Slice", [x, writer.value(offset, np.int64), writer.value(ends, np.int64), places])
        )
    stacked = writer.emit("Concat", parts, axis=1)
    taps = int(np.prod(kernel))
    columns = writer.emit(
        "Reshape", [stacked, writer.value([0, taps * weight.shape[1], int(np.prod(sizes))], np.int64)]
    )
    # The inputs lie by tap and then by channel.
    matrix = np.moveaxis(weight.reshape(*weight.shape[:2], taps), 1, 2).reshape(len(weight), -1)
    y = writer.emit("MatMul", [writer.value(matrix), columns], "", DOMAIN)
    if len(node.input) > 2 and node.input[2]:
        bias = writer.constant(node, 2)
        if bias is None:
            raise _refusal(node, "its bias is computed")
        y = writer.emit("Add", [y, writer.value(bias.reshape(-1, 1))])
    writer.emit("Reshape", [y, writer.value([0, len(weight), *sizes], np.int64)], node.output[0])


def _known(model: onnx.ModelProto) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Give shapes, an unknown size as -1, and element types of all graphs' values."""
    shapes: dict[str, list[int]] = {}
    types: dict[str, int] = {}
    for scope in file.scopes(model):
        graph = scope.graph
        for tensor in graph.initializer:
            shapes[tensor.name], types[tensor.name] = list(tensor.dims), tensor.data_type
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind = value.type.tensor_type
            if kind.elem_type:
                types[value.name] = kind.elem_type
            if kind.HasField("shape"):
                shapes[value.name] = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
    return shapes, types


REWRITES: dict[str, Callable[[Writer, onnx.NodeProto], None]] = {
    "BatchNormalization": _batch_normalization,
    "Conv": _conv,
    "Gemm": _gemm,
    "LayerNormalization": _layer_normalization,
    "MatMul": _matmul,
    "Pow": _pow,
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Softmax": _softmax,
}
"""Operators that need more than another domain."""
