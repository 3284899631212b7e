"""What is in an ONNX file: its layers, their precisions and what they weigh. No torch."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from bitsearch.onnxfile import chains, folding, graph
from bitsearch.onnxfile.graph import Scope
from bitsearch.onnxfile.linear import is_linear, layer_name
from bitsearch.onnxfile.products import MICROSOFT
from bitsearch.ops import DOMAIN
from bitsearch.ops.reference import unpack

MESSAGES = "MessagePassing"

# Which inputs of an operator hold its weights, and which the steps that they are quantised with.
WEIGHTS: Mapping[tuple[str, str], tuple[tuple[int, ...], tuple[int, ...]]] = {
    ("", "MatMul"): ((1,), ()),
    ("", "Gemm"): ((1,), ()),
    ("", "Einsum"): ((1,), ()),
    ("", "Conv"): ((1,), ()),
    ("", "ConvTranspose"): ((1,), ()),
    ("", "MatMulInteger"): ((1,), ()),
    ("", "ConvInteger"): ((1,), ()),
    ("", "QLinearMatMul"): ((3,), (1, 4, 6)),
    ("", "QLinearConv"): ((3,), (1, 4, 6)),
    ("", "LSTM"): ((1, 2), ()),
    ("", "GRU"): ((1, 2), ()),
    ("", "RNN"): ((1, 2), ()),
    (MICROSOFT, "FusedMatMul"): ((1,), ()),
    (MICROSOFT, "FusedGemm"): ((1,), ()),
    (MICROSOFT, "FusedConv"): ((1,), ()),
    (MICROSOFT, "DynamicQuantizeMatMul"): ((1,), (2,)),
    (MICROSOFT, "DynamicQuantizeLSTM"): ((1, 2), (8, 10)),
    (MICROSOFT, "MatMulIntegerToFloat"): ((1,), (2, 3)),
    (MICROSOFT, "MatMulNBits"): ((1,), (2,)),
    (DOMAIN, "TernaryMatMul"): ((1,), (2,)),
    (DOMAIN, MESSAGES): ((3, 6), (4, 7)),
}
LOW_BIT = ("ternary", "binary", "int2", "uint2")
FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}


@dataclass(frozen=True)
class LayerContent:
    """Constant weights of a node: `shape` is theirs, `bytes` what they take in the file, as they are stored there.

    `parameters` counts weights and bias; `zeros` is the share of weights that are 0, None where codes hide it.
    """

    name: str
    op: str
    precision: str
    shape: tuple[int, ...]
    parameters: int
    bytes: int
    zeros: float | None


@dataclass(frozen=True)
class FileContent:
    """What an ONNX file holds.

    `fraction` is counted in the file: parameters of layers of two bits and less over all floating-point constants and
    quantised weights; `precisions` gives weights, bytes and share of every precision that layers have. What the
    exporter counted in the network stands in `metadata`.
    """

    path: str
    bytes: int
    ir_version: int
    opsets: Mapping[str, int]
    producer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    functions: tuple[str, ...]
    metadata: Mapping[str, Any]
    nodes: Mapping[str, int]
    layers: tuple[LayerContent, ...]
    precisions: Mapping[str, Mapping[str, float]]
    quantized_parameters: int
    total_parameters: int
    fraction: float


def inspect(path: Path) -> FileContent:
    """Describe an ONNX file, anyone's; raises ExportError where it cannot be read."""
    model = graph.read(path)
    with graph.refusals(path):
        return _describe(model, path)


def _describe(model: onnx.ModelProto, path: Path) -> FileContent:
    inner = list(graph.scopes(model))
    found = _weights(inner)
    quantized, total = _count(inner, found)
    constants = set(inner[0].initializers)
    given = [value for value in model.graph.input if value.name not in constants]
    precisions: dict[str, dict[str, float]] = {}
    for item in {item.place: item for item in found}.values():
        entry = precisions.setdefault(item.content.precision, {"weights": 0, "bytes": 0, "fraction": 0.0})
        entry["weights"] += math.prod(item.content.shape)
        entry["bytes"] += item.content.bytes
        entry["fraction"] = entry["weights"] / total if total else 0.0
    return FileContent(
        path=str(path),
        bytes=graph.size_on_disk(path),
        ir_version=model.ir_version,
        opsets={item.domain or "ai.onnx": item.version for item in model.opset_import},
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        inputs=tuple(_signature(value) for value in given),
        outputs=tuple(_signature(value) for value in model.graph.output),
        functions=tuple(f"{item.domain}::{item.name}" for item in model.functions),
        metadata={key: json_value(text) or text for key, text in graph.metadata(model).items()},
        nodes=dict(Counter(node.op_type for scope in inner for node in scope.nodes).most_common()),
        layers=tuple(item.content for item in found),
        precisions=precisions,
        quantized_parameters=quantized,
        total_parameters=total,
        fraction=quantized / total if total else 0.0,
    )


def layer_contents(model: onnx.ModelProto) -> tuple[LayerContent, ...]:
    """List the constant weights of nodes, also of those in bodies of If and Loop."""
    return tuple(item.content for item in _weights(list(graph.scopes(chains.unchained(model)))))


def parameters(model: onnx.ModelProto) -> tuple[int, int]:
    """Count the parameters of layers of two bits and less, and all parameters; shared ones count once."""
    inner = list(graph.scopes(chains.unchained(model)))
    return _count(inner, _weights(inner))


@dataclass(frozen=True)
class _Weight:
    """Weights with the places, graph and name, of where they are stored, of their steps and of the layer's bias."""

    content: LayerContent
    place: tuple[str, str]
    steps: frozenset[tuple[str, str]]
    bias: tuple[str, str] | None


def _weights(inner: list[Scope]) -> list[_Weight]:
    found = []
    for scope in inner:
        for node in scope.nodes:
            domain = "" if node.domain in graph.STANDARD else node.domain
            indices, steps = WEIGHTS.get((domain, node.op_type), ((), ()))
            read = [_weight(scope, node, index, steps) for index in indices if len(node.input) > index]
            found += [item for item in read if item is not None]
    return found


def _weight(scope: Scope, node: onnx.NodeProto, index: int, steps: tuple[int, ...]) -> _Weight | None:
    name = node.input[index]
    weight = scope.constant(name)
    if weight is None or weight.ndim < 2:
        return None
    own = {_place(scope, node.input[step]) for step in steps if len(node.input) > step}
    place, stored = _place(scope, name), weight
    owner, given = scope.origin(name) or (scope, name)
    for _ in range(
        folding.DEEPEST
    ):  # what the weights are quantised as lies behind the nodes that dequantise them
        producer = owner.producers.get(given)
        if producer is None or not producer.input or producer.op_type not in UNPACKING:
            break
        owner, given = owner.origin(producer.input[0]) or (owner, producer.input[0])
        if producer.op_type == "DequantizeLinear" or node.op_type == MESSAGES:
            codes = owner.constant(given)
            stored = weight if codes is None else codes
            place = _place(owner, given)
            own.update(_place(owner, step) for step in producer.input[1:2])
    content = _layer(scope, node, name, weight, stored)
    bias = _bias(node, name)
    if node.op_type == "MatMul" and content.precision in LOW_BIT:
        bias = _added(scope, node)
    found = scope.constant(bias) if bias else None
    if found is None:
        return _Weight(content, place, frozenset(own), None)
    content = replace(content, parameters=math.prod(content.shape) + found.size)
    return _Weight(content, place, frozenset(own), _place(scope, bias))


def _added(scope: Scope, node: onnx.NodeProto) -> str:
    """Name the constant that is added to a product of two-bit weights, behind a Slice that cuts off filling."""
    readers = scope.readers(node.output[0])
    while len(readers) == 1 and readers[0].op_type == "Slice":
        readers = scope.readers(readers[0].output[0])
    if len(readers) != 1 or readers[0].op_type not in ("Add", "Sum"):
        return ""
    return next((name for name in readers[0].input if scope.constant(name) is not None), "")


BIAS = {"TernaryMatMul": 3, "MatMulNBits": 5, "Gemm": 2, "Conv": 2, "ConvTranspose": 2}
UNPACKING = ("DequantizeLinear", "Transpose", "Reshape", "Identity", "Cast", "Squeeze", "Unsqueeze")


def _bias(node: onnx.NodeProto, weight: str) -> str:
    """Name the bias that goes with a node's weights; empty where there is none."""
    position = list(node.input).index(weight) + 2 if node.op_type == MESSAGES else BIAS.get(node.op_type)
    return node.input[position] if position is not None and len(node.input) > position else ""


def _place(scope: Scope, name: str) -> tuple[str, str]:
    owner, name = scope.origin(name) or (scope, name)
    return owner.path, name


def _count(inner: list[Scope], found: list[_Weight]) -> tuple[int, int]:
    steps = frozenset[tuple[str, str]]().union(*(item.steps for item in found))
    sizes = {
        (scope.path, tensor.name): math.prod(tensor.dims)
        for scope in inner
        for tensor in (*scope.graph.initializer, *_constants(scope.graph))
        if tensor.data_type in FLOATS and (scope.path, tensor.name) not in steps
    }
    low: dict[tuple[str, str], int] = {}
    for item in found:
        weights = math.prod(item.content.shape)
        sizes.setdefault(item.place, weights)
        if item.content.precision in LOW_BIT:
            low[item.place] = sizes[item.place] = weights
            if item.bias is not None:
                low[item.bias] = sizes.setdefault(item.bias, item.content.parameters - weights)
    return sum(low.values()), sum(sizes.values())


def ternary_precision(codes: NDArray[np.int8]) -> str:
    """Tell 1-bit weights, which hold no zero, from ternary ones."""
    return "ternary" if (codes == 0).any() or codes.size == 1 else "binary"


def _layer(
    scope: Scope, node: onnx.NodeProto, name: str, weight: NDArray[Any], stored: NDArray[Any]
) -> LayerContent:
    label = layer_name(scope, node) if is_linear(scope, node) else node.name or name.removesuffix(".packed")
    if node.op_type == MESSAGES:
        label = name.removesuffix(".float.weight")
    zeros, precision = None, str(stored.dtype)
    shape = tuple(int(length) for length in weight.shape)
    if node.op_type == "TernaryMatMul":
        codes = unpack(weight, _attribute(node, "K", 0))
        shape, precision = codes.shape, ternary_precision(codes)
        zeros = float((codes == 0).mean())
    elif node.op_type == "MatMulNBits":
        shape = (_attribute(node, "N", 0), _attribute(node, "K", 0))
        precision = f"int{_attribute(node, 'bits', 4)}"
    elif weight.size and weight.dtype.kind == "f":
        zeros = float((weight == 0).mean())
        if node.op_type == MESSAGES and stored.dtype == np.int8:
            precision = ternary_precision(stored)
    bits = 8 * stored.itemsize
    if digits := "".join(filter(str.isdigit, str(stored.dtype))):
        bits = min(bits, int(digits))  # four or two bits take a whole byte in numpy
    size = stored.size * bits // 8
    return LayerContent(label, node.op_type, precision, shape, math.prod(shape), size, zeros)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def _constants(graph: onnx.GraphProto) -> list[TensorProto]:
    """Give the tensors of Constant nodes under the names of their values."""
    tensors = []
    for node in graph.node:
        for item in node.attribute if node.op_type == "Constant" else ():
            if item.name == "value":
                tensor = TensorProto(name=node.output[0], dims=item.t.dims, data_type=item.t.data_type)
                tensors.append(tensor)
    return tensors


def _signature(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return f"{value.name}: {value.type.WhichOneof('value') or 'unknown'}"
    kinds = {number: name.lower() for name, number in TensorProto.DataType.items()}
    kind = kinds.get(tensor.elem_type, f"type {tensor.elem_type}")
    if not tensor.HasField("shape"):
        return f"{value.name}: {kind}"
    sizes = (
        dim.dim_param or (str(dim.dim_value) if dim.HasField("dim_value") else "?")
        for dim in tensor.shape.dim
    )
    return f"{value.name}: {kind} ({', '.join(sizes)})"


def json_value(text: str) -> dict[str, Any] | None:
    """Read a JSON object; None for anything else, and for numbers that JSON does not have."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        value = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
