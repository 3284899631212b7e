"""The operators of `com.bithep`: the compiled library, its numpy truth and its portable form."""

if __name__ != "bitsearch.ops":
    raise ImportError(f"found the bare folder {__name__!r}: install bitsearch and import bitsearch.ops")

from bitsearch.ops.domain import DOMAIN, VERSION
from bitsearch.ops.errors import OperatorError
from bitsearch.ops.functions import add_functions
from bitsearch.ops.library import (
    Kernel,
    cmake_path,
    include_path,
    kernels,
    library_path,
    preload_path,
    register,
    session,
)
from bitsearch.ops.message_passing.function import message_passing_function
from bitsearch.ops.monotone_spline.function import monotone_spline_function
from bitsearch.ops.select_columns.function import select_columns_function
from bitsearch.ops.ternary_chain.function import ternary_chain_function
from bitsearch.ops.ternary_matmul.function import ternary_matmul_function

__all__ = [
    "DOMAIN",
    "VERSION",
    "Kernel",
    "OperatorError",
    "add_functions",
    "cmake_path",
    "include_path",
    "kernels",
    "library_path",
    "message_passing_function",
    "monotone_spline_function",
    "preload_path",
    "register",
    "select_columns_function",
    "session",
    "ternary_chain_function",
    "ternary_matmul_function",
]
