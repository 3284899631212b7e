"""Linear layers of any ONNX file: MatMul and Gemm nodes with constant weights, and what exactly they compute."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from bitsearch.onnxfile.graph import Scope
from bitsearch.ops.reference import K_MAX

FOLDED = "bitsearch.folded"  # property of nodes that our exporter named after a layer

Array = NDArray[np.float32]


@dataclass(frozen=True)
class LinearNode:
    """`gain · x Wᵀ + bias` with weights `(out_features, in_features)`; `addition` is the Add that brings the bias."""

    weight: Array
    gain: float = 1.0
    bias: Array | None = None
    bias_name: str = ""
    addition: onnx.NodeProto | None = None


def is_linear(node: onnx.NodeProto) -> bool:
    """Tell MatMul and Gemm of the standard operators from all others."""
    return node.domain in ("", "ai.onnx") and node.op_type in ("MatMul", "Gemm")


def layer_name(scope: Scope, node: onnx.NodeProto) -> str:
    """Name a layer by its node, or by its weights where the node has no name.

    Our exporter writes layers with three axes as MatMul and Add, and names the Add.
    """
    for reader in scope.readers(node.output[0]):
        if reader.op_type == "Add" and any(item.key == FOLDED for item in reader.metadata_props):
            return reader.name
    return node.name or (node.input[1] if len(node.input) > 1 else node.op_type)


def examine(scope: Scope, node: onnx.NodeProto, uses: Counter[str]) -> LinearNode | str:
    """Read a MatMul or Gemm; or say why it is no layer that `TernaryMatMul` could stand for."""
    weight = scope.constant(node.input[1])
    if weight is None:
        left = scope.constant(node.input[0]) is not None
        return "its weights are the left factor" if left else "its weights are not constant"
    if weight.dtype != np.float32:
        return f"its weights are {weight.dtype}, expected float32"
    if weight.ndim != 2 or not weight.size or max(weight.shape) > K_MAX:
        return f"its weights have shape {weight.shape}, expected two axes, not empty"
    if not np.isfinite(weight).all():
        return "its weights hold NaN or infinity"
    return _gemm(scope, node, weight) if node.op_type == "Gemm" else _matmul(scope, node, weight.T, uses)


def _gemm(scope: Scope, node: onnx.NodeProto, weight: Array) -> LinearNode | str:
    """Fold alpha into the gain and beta into the bias."""
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    if attributes.get("transA", 0):
        return "it transposes its activations (transA = 1)"
    weight = weight if attributes.get("transB", 0) else weight.T
    gain = attributes.get("alpha", 1.0)
    if not np.isfinite(gain):
        return f"its alpha is {gain}, expected a finite number"
    if len(node.input) < 3 or not node.input[2]:
        return LinearNode(weight, gain)
    found = scope.constant(node.input[2])
    if found is None:
        return "its bias is not constant"
    if found.ndim == 2 and len(found) == 1:
        found = found[0]
    bias = _as_bias(found, len(weight))
    if bias is None:
        return f"its bias has shape {found.shape}, expected ({len(weight)},)"
    return LinearNode(weight, gain, bias * np.float32(attributes.get("beta", 1.0)), node.input[2])


def _matmul(scope: Scope, node: onnx.NodeProto, weight: Array, uses: Counter[str]) -> LinearNode:
    """Take the Add behind for the bias, where it alone reads the product and adds one constant an output."""
    readers = scope.readers(node.output[0])
    if uses[node.output[0]] == 1 and len(readers) == 1 and readers[0].op_type == "Add":
        name = readers[0].input[int(readers[0].input[0] == node.output[0])]
        bias = _as_bias(scope.constant(name), len(weight))
        if bias is not None:
            return LinearNode(weight, 1.0, bias, name, readers[0])
    return LinearNode(weight)


def _as_bias(array: NDArray[Any] | None, n: int) -> Array | None:
    """Broadcast a bias to `(n,)`; None where it is none."""
    if array is None or array.dtype != np.float32 or array.shape not in ((), (1,), (n,)):
        return None
    return np.broadcast_to(array, (n,)).astype(np.float32)
