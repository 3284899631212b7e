"""The numpy truth of the operators; each README numbers the equations."""

from bitsearch.ops.message_passing.reference import MessageLayer, message_passing
from bitsearch.ops.monotone_spline.reference import monotone_spline
from bitsearch.ops.select_columns.reference import select_columns
from bitsearch.ops.ternary_chain.reference import Link, ternary_chain
from bitsearch.ops.ternary_matmul.reference import (
    GAMMA_FLOOR,
    K_MAX,
    Float,
    pack,
    quantize,
    ternary_matmul,
    unpack,
)

__all__ = [
    "GAMMA_FLOOR",
    "K_MAX",
    "Float",
    "Link",
    "MessageLayer",
    "message_passing",
    "monotone_spline",
    "pack",
    "quantize",
    "select_columns",
    "ternary_chain",
    "ternary_matmul",
    "unpack",
]
