"""The reproducible operators in standard ones, so that a file runs, in another order, without the library.

Each is the standard operator of its own name.
"""

from collections.abc import Mapping

import onnx
from onnx import helper, parser

from bitsearch.ops.domain import DOMAIN
from bitsearch.ops.errors import OperatorError
from bitsearch.ops.reproducible.reference import ELEMENTARY

INPUTS: Mapping[str, tuple[str, ...]] = {
    "Gemm": ("A", "B", "C"),
    "LayerNormalization": ("X", "Scale", "B"),
    "MatMul": ("A", "B"),
    "ReduceSum": ("data", "axes"),
    "Softmax": ("input",),
    **dict.fromkeys(ELEMENTARY, ("X",)),
}
"""Operators and their inputs."""
ATTRIBUTES: Mapping[str, Mapping[str, int | float | str]] = {
    "Gelu": {"approximate": "none"},
    "Gemm": {"transB": 0},
    "LayerNormalization": {"axis": -1, "epsilon": 1e-5},
    "ReduceSum": {"keepdims": 1},
    "Softmax": {"axis": -1},
}
"""Attributes and their defaults; a standard operator has more, which here are what is usual."""
OPSETS = {"Gelu": 20, "LayerNormalization": 17}
OPSET_MIN = 13
_KINDS = {int: "int", float: "float", str: "string"}


def reproducible_function(name: str, opset: int = 20) -> onnx.FunctionProto:
    """Build the body of an operator for models of the given opset.

    Raises:
        OperatorError: the opset is older than the standard operator.
    """
    oldest = OPSETS.get(name, OPSET_MIN)
    if opset < oldest:
        raise OperatorError(f"opset: found {opset}, expected at least {oldest} for {name}")
    defaults = ATTRIBUTES.get(name, {})
    given = ", ".join(f"{key}: {_KINDS[type(value)]} = @{key}" for key, value in defaults.items())
    inputs = ", ".join(INPUTS[name])
    function = parser.parse_function(
        f'<opset_import: ["" : {opset}], domain: "{DOMAIN}">\n'
        f"{name} ({inputs}) => (Y) {{ Y = {name}{f'<{given}>' if given else ''}({inputs}) }}"
    )
    function.attribute_proto.extend(helper.make_attribute(key, value) for key, value in defaults.items())
    return function
