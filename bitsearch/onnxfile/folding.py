"""Compute what follows from constants alone, in numpy: which operators, and how large a result may be."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

DEEPEST = 64  # nodes in a row
LARGEST = 2**26  # numbers in a result
GROWTH = 64  # how much larger than what it is made of a result may be

# Operators whose results depend on their inputs alone and are no larger, but for broadcasting.
FOLDABLE = frozenset(
    (
        *("Constant", "Identity", "Cast", "CastLike", "DequantizeLinear", "QuantizeLinear"),
        *(
            "Concat",
            "Flatten",
            "Gather",
            "Reshape",
            "Shape",
            "Slice",
            "Split",
            "Squeeze",
            "Transpose",
            "Unsqueeze",
        ),
        *(
            "Abs",
            "Add",
            "Clip",
            "Div",
            "Exp",
            "Max",
            "Min",
            "Mod",
            "Mul",
            "Neg",
            "Pow",
            "Round",
            "Sign",
            "Sqrt",
            "Sub",
        ),
        *("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Tanh", "Where"),
        *("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"),
    )
)
QUANTIZERS = ("DequantizeLinear", "QuantizeLinear")  # onnxruntime has its own of the same meaning
QUANTIZERS_OPSET = 21  # has all that older ones have, which onnx's evaluator cannot compute


def is_foldable(node: onnx.NodeProto) -> bool:
    """Tell operators that may be computed ahead."""
    if node.domain in ("", "ai.onnx"):
        return node.op_type in FOLDABLE
    return node.domain == "com.microsoft" and node.op_type in QUANTIZERS


def fold(
    node: onnx.NodeProto, arrays: Mapping[str, NDArray[Any]], output: str, opset: int
) -> NDArray[Any] | None:
    """Compute one output of a node; None where the result would be too large or the node is at fault."""
    if node.op_type == "Identity" and node.input:
        return arrays[node.input[0]]
    if node.op_type == "Transpose" and node.input:
        permutation = next((list(item.ints) for item in node.attribute if item.name == "perm"), None)
        found = arrays[node.input[0]]
        valid = permutation is None or sorted(permutation) == list(range(found.ndim))
        return np.transpose(found, permutation) if valid else None
    if _size(node, arrays) > LARGEST:
        return None
    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    if node.op_type in QUANTIZERS:
        alone.domain, opset = "", max(opset, QUANTIZERS_OPSET)
    from onnx.reference import ReferenceEvaluator

    function = helper.make_function(
        "fold", "fold", list(arrays), list(node.output), [alone], [helper.make_opsetid("", opset)]
    )
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(function).run(None, dict(arrays), {})
    except Exception:  # each operator has its own way to fail; such a node is left to the runtime
        return None
    return np.asarray(dict(zip(node.output, results, strict=False))[output])


def _size(node: onnx.NodeProto, arrays: Mapping[str, NDArray[Any]]) -> int:
    """Bound the size of the result: infinite where it would be out of proportion."""
    sizes = [arrays[name].size for name in node.input if name]
    if node.op_type == "Concat":
        return sum(sizes)
    if node.op_type == "Gather":
        table, indices = (arrays[name] for name in node.input[:2])
        return table.size * indices.size // max(min(table.shape, default=1), 1)
    try:
        shape = np.broadcast_shapes(*(arrays[name].shape for name in node.input if name))
    except ValueError:  # such as data and axes
        return max(sizes, default=0)
    size = math.prod(shape)
    return size if size <= GROWTH * max([*sizes, 1]) else 2 * LARGEST
