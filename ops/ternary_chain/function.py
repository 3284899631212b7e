"""`TernaryChain2` to `8` and `TernaryNormChain2` to `8` in `TernaryMatMul` and standard operators.

Functions have a fixed number of inputs, so that each length has a name of its own. A library that is older than this
operator still runs the layers inside with its kernels.
"""

from collections.abc import Collection, Mapping, Sequence

import onnx
from onnx import helper, parser

from bitsearch.ops.domain import DOMAIN
from bitsearch.ops.errors import OperatorError
from bitsearch.ops.monotone_spline.function import is_word
from bitsearch.ops.ternary_chain.reference import LENGTHS
from bitsearch.ops.ternary_matmul.function import OPSET_MIN

PREFIX, NORMAL_PREFIX = "TernaryChain", "TernaryNormChain"
NAMES = {f"{prefix}{length}": length for prefix in (PREFIX, NORMAL_PREFIX) for length in LENGTHS}
"""How many layers an operator has, by its name."""
OPSET_OF_NORMALIZATION = 17


def _roles(name: str, length: int) -> list[str]:
    layer, norm = ("W", "scale", "bias"), ("gain", "shift") if name.startswith(NORMAL_PREFIX) else ()
    hidden = [f"{role}{i}" for i in range(length - 1) for role in (*layer, *norm)]
    return [*hidden, *(f"{role}{length - 1}" for role in layer)]


ROLES: Mapping[str, Sequence[str]] = {name: _roles(name, length) for name, length in NAMES.items()}
"""The inputs behind X, by the operator's name."""

_HEAD = """
    activation = Constant<value_string: string = @activation>()
    alpha = Constant<value_float: float = @alpha>()
    one = Constant<value_ints = [1]>()
    zero = Constant<value_float = 0.0>()
"""
_LAYER = """
    y{i} = com.bithep.TernaryMatMul<K: int = @K{i}, act_qmax: float = @act_qmax>(x{i}, W{i}, scale{i}, bias{i})"""
_NORMALIZATION = """
    z{i} = LayerNormalization<axis = -1, epsilon: float = @epsilon>(y{i}, gain{i}, shift{i})"""
_ACTIVATIONS = {
    "relu": """
    below_r{i} = Less({x}, zero)
    {out} = Where(below_r{i}, zero, {x})""",
    "leaky-relu": """
    below_l{i} = Less({x}, zero)
    sloped{i} = Mul({x}, alpha)
    {out} = Where(below_l{i}, sloped{i}, {x})""",
    "silu": """
    gate_s{i} = Sigmoid({x})
    {out} = Mul({x}, gate_s{i})""",
    "gelu": """
    third{i} = Constant<value_float = 0.044715>()
    twice_root{i} = Constant<value_float = 1.5957691216057308>()
    square{i} = Mul({x}, {x})
    cube{i} = Mul(square{i}, {x})
    bent{i} = Mul(cube{i}, third{i})
    sum{i} = Add({x}, bent{i})
    u{i} = Mul(sum{i}, twice_root{i})
    gate_g{i} = Sigmoid(u{i})
    {out} = Mul({x}, gate_g{i})""",
}


def ternary_chain_function(
    length: int,
    opset: int = 20,
    activations: Collection[str] = tuple(_ACTIVATIONS),
    normal: bool = False,
) -> onnx.FunctionProto:
    """Build the body of a chain of so many layers for models of the given opset, 13 or newer.

    A `normal` one is `TernaryNormChain`, of opset 17 or newer.

    `activations` are those that the model's chains have: a file holds no branches that it does not take.

    Raises:
        OperatorError: there is no chain of that length, or the opset is older than what the body needs.
    """
    if length not in LENGTHS:
        raise OperatorError(f"layers: found {length}, expected {LENGTHS[0]} to {LENGTHS[-1]}")
    oldest = OPSET_OF_NORMALIZATION if normal else OPSET_MIN
    if opset < oldest:
        raise OperatorError(f"opset: found {opset}, expected at least {oldest}")
    name = f"{NORMAL_PREFIX if normal else PREFIX}{length}"
    used = [word for word in _ACTIVATIONS if word in activations] or list(_ACTIVATIONS)
    body = _HEAD
    for word in used[:-1]:
        body += f"    {is_word(_flag(word), 'activation', word)}\n"
    body += "    x0 = Identity(X)"
    for i in range(length):
        body += _LAYER.format(i=i)
        if i + 1 == length:
            body += f"\n    Y = Identity(y{i})\n"
            continue
        body += _NORMALIZATION.format(i=i) if normal else ""
        body += _either(used, i, f"{'z' if normal else 'y'}{i}", f"x{i + 1}")
    inputs = ", ".join(["X", *ROLES[name]])
    attributes = ", ".join([*(f"K{i}" for i in range(length)), "activation"])
    function = parser.parse_function(
        f'<opset_import: ["" : {opset}, "{DOMAIN}" : 1], domain: "{DOMAIN}">\n'
        f"{name} <{attributes}>({inputs}) => (Y) {{{body}}}"
    )
    defaults = {"act_qmax": 127.0, "alpha": 0.01} | ({"epsilon": 1e-5} if normal else {})
    function.attribute_proto.extend(helper.make_attribute(name, value) for name, value in defaults.items())
    return function


def _either(words: Sequence[str], i: int, x: str, out: str) -> str:
    """Write the one of some activations of x that the attribute names."""
    first, *others = words
    if not others:
        return _ACTIVATIONS[first].format(i=i, x=x, out=out)
    yes, no = f"{out}_yes", f"{out}_no"
    return (
        f"\n    {out} = If({_flag(first)}) <then_branch = g_{yes} () => (float[] {yes}) {{"
        f"{_ACTIVATIONS[first].format(i=i, x=x, out=yes)} }},"
        f" else_branch = g_{no} () => (float[] {no}) {{{_either(others, i, x, no)} }}>"
    )


def _flag(word: str) -> str:
    return f"is_{word.replace('-', '_')}"
