"""The product x · (scale · codes)ᵀ + bias in operators that onnxruntime has of its own.

Weights are whole numbers `(out_features, in_features)` times a scale `(out_features,)`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bitsearch.core.rounding import Codes

ZERO = 128  # what stands for 0 in unsigned bytes

Constant = Callable[[str, NDArray[Any]], str]
"""Adds a constant by what it is for and gives its name."""
Fresh = Callable[[str], str]
"""Makes a name that nothing has."""


def int8(
    x: str,
    codes: Codes,
    scale: NDArray[np.float32],
    bias: str,
    out: str,
    name: str,
    constant: Constant,
    fresh: Fresh,
) -> list[onnx.NodeProto]:
    """Write onnxruntime's dynamic quantisation: activations are rounded to 8 bits with one step for all of them.

    Weights are unsigned: with signed ones processors without VNNI saturate sums of two products.
    """
    weights = constant("int8", (codes.T.astype(np.int16) + ZERO).astype(np.uint8))
    zero, steps = constant("int8.zero", np.array(ZERO, np.uint8)), constant("int8.scale", scale)
    q, step, point, total, number, product = (
        fresh(f"{out}.{part}") for part in ("q", "step", "point", "sum", "float", "product")
    )
    factor = fresh(f"{out}.factor")
    nodes = [
        helper.make_node("DynamicQuantizeLinear", [x], [q, step, point], _named(name, "quantize")),
        helper.make_node("MatMulInteger", [q, weights, point, zero], [total], name),
        helper.make_node("Cast", [total], [number], _named(name, "cast"), to=int(TensorProto.FLOAT)),
        helper.make_node("Mul", [step, steps], [factor], _named(name, "steps")),
        helper.make_node("Mul", [number, factor], [product], _named(name, "scale")),
    ]
    if bias:
        nodes.append(helper.make_node("Add", [product, bias], [out], _named(name, "bias")))
    else:
        nodes[-1].output[0] = out
    return nodes


def _named(name: str, part: str) -> str:
    return f"{name}/{part}" if name else ""
