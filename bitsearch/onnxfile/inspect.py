"""What is in an ONNX file: its layers, their precisions and what they weigh. No torch."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from bitsearch.onnxfile import graph
from bitsearch.onnxfile.graph import Scope
from bitsearch.onnxfile.linear import is_linear, layer_name
from bitsearch.ops import DOMAIN
from bitsearch.ops.reference import unpack

# Which input of an operator holds its weights.
WEIGHTS = {
    ("", "MatMul"): 1,
    ("", "Gemm"): 1,
    ("", "Conv"): 1,
    ("", "ConvTranspose"): 1,
    ("", "MatMulInteger"): 1,
    ("", "ConvInteger"): 1,
    ("", "QLinearMatMul"): 3,
    ("", "QLinearConv"): 3,
    ("", "LSTM"): 1,
    ("", "GRU"): 1,
    ("", "RNN"): 1,
    ("com.microsoft", "DynamicQuantizeMatMul"): 1,
    ("com.microsoft", "MatMulIntegerToFloat"): 1,
    ("com.microsoft", "MatMulNBits"): 1,
    (DOMAIN, "TernaryMatMul"): 1,
}
FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}


@dataclass(frozen=True)
class LayerContent:
    """A node with constant weights: `shape` is that of the weights, `bytes` what they take in the file.

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

    `fraction` is counted in the file: parameters of low-bit layers over all floating-point constants and
    low-bit weights. What the exporter counted in the network stands in `metadata`.
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
    quantized_parameters: int
    total_parameters: int
    fraction: float


def inspect(path: Path) -> FileContent:
    """Describe an ONNX file, anyone's; raises ExportError where it cannot be read."""
    model = graph.read(path)
    inner = list(graph.scopes(model))
    layers, (quantized, total) = layer_contents(model), parameters(model)
    constants = {name for scope in inner for name in scope.initializers}
    given = [value for value in model.graph.input if value.name not in constants]
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
        nodes=dict(Counter(node.op_type for scope in inner for node in scope.graph.node).most_common()),
        layers=layers,
        quantized_parameters=quantized,
        total_parameters=total,
        fraction=quantized / total if total else 0.0,
    )


def layer_contents(model: onnx.ModelProto) -> tuple[LayerContent, ...]:
    """List the nodes with constant weights, also those in bodies of If and Loop."""
    found = []
    for scope in graph.scopes(model):
        for node in scope.graph.node:
            index = WEIGHTS.get((node.domain, node.op_type))
            if index is None or len(node.input) <= index:
                continue
            weight = scope.constant(node.input[index])
            if weight is not None and weight.ndim >= 2:
                found.append(_layer(scope, node, node.input[index], weight))
    return tuple(found)


def parameters(model: onnx.ModelProto) -> tuple[int, int]:
    """Count the parameters of low-bit layers, and all parameters; shared ones count once."""
    quantized: dict[str, int] = {}
    steps: set[str] = set()
    for scope in graph.scopes(model):
        for node in scope.graph.node:
            if (node.domain, node.op_type) != (DOMAIN, "TernaryMatMul"):
                continue
            weight = scope.constant(node.input[1])
            if weight is not None:
                quantized[node.input[1]] = len(weight) * _attribute(node, "K")
            bias = scope.constant(node.input[3]) if len(node.input) > 3 and node.input[3] else None
            if bias is not None:
                quantized[node.input[3]] = bias.size
            steps.add(node.input[2])
    floats = {
        tensor.name: int(np.prod(tensor.dims))
        for scope in graph.scopes(model)
        for tensor in (*scope.graph.initializer, *_constants(scope.graph))
        if tensor.data_type in FLOATS and tensor.name not in steps
    }
    return sum(quantized.values()), sum((floats | quantized).values())


def ternary_precision(codes: NDArray[np.int8]) -> str:
    """Tell 1-bit weights, which hold no zero, from ternary ones."""
    return "ternary" if (codes == 0).any() or codes.size == 1 else "binary"


def _layer(scope: Scope, node: onnx.NodeProto, name: str, weight: NDArray[Any]) -> LayerContent:
    label = layer_name(scope, node) if is_linear(node) else node.name or name
    size, zeros, precision = weight.size, None, str(weight.dtype)
    shape = tuple(int(length) for length in weight.shape)
    if node.op_type == "TernaryMatMul":
        codes = unpack(weight, _attribute(node, "K"))
        shape, size, precision = codes.shape, codes.size, ternary_precision(codes)
        zeros = float((codes == 0).mean())
    elif node.op_type == "MatMulNBits":
        shape = (_attribute(node, "N"), _attribute(node, "K"))
        size, precision = shape[0] * shape[1], f"int{_attribute(node, 'bits')}"
    elif weight.dtype.kind == "f":
        zeros = float((weight == 0).mean())
    position = {"TernaryMatMul": 3, "Gemm": 2, "Conv": 2, "ConvTranspose": 2}.get(node.op_type)
    bias = None
    if position is not None and len(node.input) > position:
        bias = scope.constant(node.input[position])
    biases = 0 if bias is None else bias.size
    return LayerContent(label, node.op_type, precision, shape, size + biases, weight.nbytes, zeros)


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next(int(item.i) for item in node.attribute if item.name == name)


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
    kind = TensorProto.DataType.Name(tensor.elem_type).lower()
    if not tensor.HasField("shape"):
        return f"{value.name}: {kind}"
    sizes = (
        dim.dim_param or (str(dim.dim_value) if dim.HasField("dim_value") else "?")
        for dim in tensor.shape.dim
    )
    return f"{value.name}: {kind} ({', '.join(sizes)})"


def json_value(text: str) -> dict[str, Any] | None:
    """Read a JSON object; None for anything else."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
