"""`TernaryChain2` to `TernaryChain8` in `TernaryMatMul` and standard operators.

Functions have a fixed number of inputs, so that each length has a name of its own. A library that is older than this
operator still runs the layers inside with its kernels.
"""

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
    half = Constant<value_float = 0.5>()
    third = Constant<value_float = 0.044715>()
    twice_root = Constant<value_float = 1.5957691216057308>()
    {is_relu}
    {is_leaky_relu}
    {is_silu}
"""
_LAYER = """
    y{i} = com.bithep.TernaryMatMul<K: int = @K{i}, act_qmax: float = @act_qmax>(x{i}, W{i}, scale{i}, bias{i})"""
_ACTIVATION = """
    is_below{i} = Less(y{i}, zero)
    x{n} = If(is_relu) <
      then_branch = relu{i} () => (float[] r{i}) {{ r{i} = Where(is_below{i}, zero, y{i}) }},
      else_branch = others{i} () => (float[] o{i}) {{
        o{i} = If(is_leaky_relu) <
          then_branch = leaky{i} () => (float[] l{i}) {{
            sloped{i} = Mul(y{i}, alpha)
            l{i} = Where(is_below{i}, sloped{i}, y{i})
          }},
          else_branch = gated{i} () => (float[] g{i}) {{
            u{i} = If(is_silu) <
              then_branch = silu{i} () => (float[] s{i}) {{ s{i} = Identity(y{i}) }},
              else_branch = gelu{i} () => (float[] t{i}) {{
                square{i} = Mul(y{i}, y{i})
                cube{i} = Mul(square{i}, y{i})
                bent{i} = Mul(cube{i}, third)
                sum{i} = Add(y{i}, bent{i})
                t{i} = Mul(sum{i}, twice_root)
              }}
            >
            gate{i} = Sigmoid(u{i})
            g{i} = Mul(y{i}, gate{i})
          }}
        >
      }}
    >
"""


def ternary_chain_function(length: int, opset: int = 20) -> onnx.FunctionProto:
    """Build the body of a chain of so many layers for models of the given opset, 13 or newer.

    Raises:
        OperatorError: there is no chain of that length, or the opset is older than what the body needs.
    """
    if length not in LENGTHS:
        raise OperatorError(f"layers: found {length}, expected {LENGTHS[0]} to {LENGTHS[-1]}")
    if opset < OPSET_MIN:
        raise OperatorError(f"opset: found {opset}, expected at least {OPSET_MIN}")
    words = {"is_relu": "relu", "is_leaky_relu": "leaky-relu", "is_silu": "silu"}
    body = _HEAD.format(**{name: is_word(name, "activation", word) for name, word in words.items()})
    body += "    x0 = Identity(X)\n"
    for i in range(length):
        body += _LAYER.format(i=i)
        body += _ACTIVATION.format(i=i, n=i + 1) if i + 1 < length else f"\n    Y = Identity(y{i})\n"
    inputs = ", ".join(["X", *(f"{role}{i}" for i in range(length) for role in ("W", "scale", "bias"))])
    attributes = ", ".join([*(f"K{i}" for i in range(length)), "activation"])
    function = parser.parse_function(
        f'<opset_import: ["" : {opset}, "{DOMAIN}" : 1], domain: "{DOMAIN}">\n'
        f"{PREFIX}{length} <{attributes}>({inputs}) => (Y) {{{body}}}"
    )
    defaults = {"act_qmax": 127.0, "alpha": 0.01}
    function.attribute_proto.extend(helper.make_attribute(name, value) for name, value in defaults.items())
    return function
