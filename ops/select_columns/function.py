"""`SelectColumns` in standard operators, so that a file runs where the library is not installed."""

import onnx
from onnx import parser

from bitsearch.ops.domain import DOMAIN
from bitsearch.ops.errors import OperatorError

NAME = "SelectColumns"
INPUTS = ("A", "C", "index", "offset", "factor")
OPSET_MIN = 13


def select_columns_function(opset: int = 20) -> onnx.FunctionProto:
    """Build the body of `SelectColumns` for models of the given opset, 13 or newer.

    Raises:
        OperatorError: the opset is older than that.
    """
    if opset < OPSET_MIN:
        raise OperatorError(f"opset: found {opset}, expected at least {OPSET_MIN}")
    return parser.parse_function(
        f'<opset_import: ["" : {opset}], domain: "{DOMAIN}">\n'
        f"{NAME} ({', '.join(INPUTS)}) => (Y) {{\n"
        "    both = Concat<axis = 1>(A, C)\n"
        "    columns = Gather<axis = 1>(both, index)\n"
        "    shifted = Sub(columns, offset)\n"
        "    Y = Mul(shifted, factor)\n"
        "}"
    )
