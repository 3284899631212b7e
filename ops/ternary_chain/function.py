"""`TernaryChain2` to `TernaryChain8` in `TernaryMatMul` and standard operators.

Functions have a fixed number of inputs, so that each length has a name of its own. A library that is older than this
operator still runs the layers inside with its kernels.
"""

from collections.abc import Collection, Sequence

import onnx
from onnx import helper, parser

from bitsearch.ops.domain import DOMAIN
from bitsearch.ops.errors import OperatorError
from bitsearch.ops.monotone_spline.function import is_word
from bitsearch.ops.ternary_chain.reference import LENGTHS
from bitsearch.ops.ternary_matmul.function import OPSET_MIN

PREFIX = "TernaryChain"
NAMES = {f"{PREFIX}{length}": length for length in LENGTHS}
"""How many layers an operator has, by its name."""

_HEAD = """
    activation = Constant<value_string: string = @activation>()
    alpha = Constant<value_float: float = @alpha>()
    one = Constant<value_ints = [1]>()
    zero = Constant<value_float = 0.0>()
"""
_LAYER = """
    y{i} = com.bithep.TernaryMatMul<K: int = @K{i}, act_qmax: float = @act_qmax>(x{i}, W{i}, scale{i}, bias{i})"""
_ACTIVATIONS = {
    "relu": """
    below_r{i} = Less(y{i}, zero)
    {out} = Where(below_r{i}, zero, y{i})""",
    "leaky-relu": """
    below_l{i} = Less(y{i}, zero)
    sloped{i} = Mul(y{i}, alpha)
    {out} = Where(below_l{i}, sloped{i}, y{i})""",
    "silu": """
    gate_s{i} = Sigmoid(y{i})
    {out} = Mul(y{i}, gate_s{i})""",
    "gelu": """
    third{i} = Constant<value_float = 0.044715>()
    twice_root{i} = Constant<value_float = 1.5957691216057308>()
    square{i} = Mul(y{i}, y{i})
    cube{i} = Mul(square{i}, y{i})
    bent{i} = Mul(cube{i}, third{i})
    sum{i} = Add(y{i}, bent{i})
    u{i} = Mul(sum{i}, twice_root{i})
    gate_g{i} = Sigmoid(u{i})
    {out} = Mul(y{i}, gate_g{i})""",
}


def ternary_chain_function(
    length: int, opset: int = 20, activations: Collection[str] = tuple(_ACTIVATIONS)
) -> onnx.FunctionProto:
    """Build the body of a chain of so many layers for models of the given opset, 13 or newer.

    `activations` are those that the model's chains have: a file holds no branches that it does not take.

    Raises:
        OperatorError: there is no chain of that length, or the opset is older than what the body needs.
    """
    if length not in LENGTHS:
        raise OperatorError(f"layers: found {length}, expected {LENGTHS[0]} to {LENGTHS[-1]}")
    if opset < OPSET_MIN:
        raise OperatorError(f"opset: found {opset}, expected at least {OPSET_MIN}")
    used = [word for word in _ACTIVATIONS if word in activations] or list(_ACTIVATIONS)
    body = _HEAD
    for word in used[:-1]:
        body += f"    {is_word(_flag(word), 'activation', word)}\n"
    body += "    x0 = Identity(X)"
    for i in range(length):
        body += _LAYER.format(i=i)
        body += _either(used, i, f"x{i + 1}") if i + 1 < length else f"\n    Y = Identity(y{i})\n"
    inputs = ", ".join(["X", *(f"{role}{i}" for i in range(length) for role in ("W", "scale", "bias"))])
    attributes = ", ".join([*(f"K{i}" for i in range(length)), "activation"])
    function = parser.parse_function(
        f'<opset_import: ["" : {opset}, "{DOMAIN}" : 1], domain: "{DOMAIN}">\n'
        f"{PREFIX}{length} <{attributes}>({inputs}) => (Y) {{{body}}}"
    )
    defaults = {"act_qmax": 127.0, "alpha": 0.01}
    function.attribute_proto.extend(helper.make_attribute(name, value) for name, value in defaults.items())
    return function


def _either(words: Sequence[str], i: int, out: str) -> str:
    """Write the one of some activations of y_i that the attribute names."""
    first, *others = words
    if not others:
        return _ACTIVATIONS[first].format(i=i, out=out)
    yes, no = f"{out}_yes", f"{out}_no"
    return (
        f"\n    {out} = If({_flag(first)}) <then_branch = g_{yes} () => (float[] {yes}) {{"
        f"{_ACTIVATIONS[first].format(i=i, out=yes)} }},"
        f" else_branch = g_{no} () => (float[] {no}) {{{_either(others, i, no)} }}>"
    )


def _flag(word: str) -> str:
    return f"is_{word.replace('-', '_')}"
