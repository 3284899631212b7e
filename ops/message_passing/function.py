"""`MessagePassing` in standard operators, so that a file runs where the library is not installed."""

import onnx
from onnx import parser

from bitsearch.ops.domain import DOMAIN
from bitsearch.ops.errors import OperatorError

NAME = "MessagePassing"
OPSET_MIN = 13  # axes of ReduceSum and Unsqueeze as inputs

# Why slices of one column: onnxruntime keeps all columns when it reduces an empty batch.
# Why sums of x - x: they are NaN exactly on rows with a NaN or an infinity, which ReduceMax may not see.
_LAYER = """
    magnitude{i} = Abs({x})
    largest{i} = REDUCE_MAX(magnitude{i})
    gamma_columns{i} = Max(largest{i}, floor)
    gamma{i} = Slice(gamma_columns{i}, zero, one, three)
    inverse_step{i} = Div(q_max{i}, gamma{i})
    scaled{i} = Mul({x}, inverse_step{i})
    rounded{i} = Round(scaled{i})
    highest{i} = Min(q_max{i}, int8_max)
    codes{i} = Min(rounded{i}, highest{i})
    is_low_bit{i} = Cast<to = 9>(q_max{i})
    factors{i} = Where(is_low_bit{i}, codes{i}, {x})
    zeros_or_nans{i} = Sub({x}, {x})
    zero_or_nan_columns{i} = ReduceSum<keepdims = 1>(zeros_or_nans{i}, three)
    zero_or_nan{i} = Slice(zero_or_nan_columns{i}, zero, one, three)
    q_safe{i} = Max(q_max{i}, f1)
    finite_step{i} = Div(gamma{i}, q_safe{i})
    low_bit_step{i} = Add(finite_step{i}, zero_or_nan{i})
    step{i} = Where(is_low_bit{i}, low_bit_step{i}, f1)
    weight_t{i} = Transpose<perm = [1, 0]>(W{i})
    total{i} = MatMul(factors{i}, weight_t{i})
    factor{i} = Mul(step{i}, scale{i})
    product{i} = Mul(total{i}, factor{i})
    y{i} = Add(product{i}, bias{i})
"""
_BODY = """
    squared_radius = Constant<value_float: float = @squared_radius>()
    slope = Constant<value_float: float = @slope>()
    weighted_scalar = Constant<value_int: int = @weighted>()
    q_max1 = Constant<value_float: float = @act_qmax1>()
    q_max2 = Constant<value_float: float = @act_qmax2>()
    is_weighted = Cast<to = 9>(weighted_scalar)
    zero = Constant<value_ints = [0]>()
    one = Constant<value_ints = [1]>()
    two = Constant<value_ints = [2]>()
    three = Constant<value_ints = [3]>()
    f0 = Constant<value_float = 0.0>()
    f1 = Constant<value_float = 1.0>()
    floor = Constant<value_float = 1e-8>()
    smallest = Constant<value_float = 1e-12>()
    int8_max = Constant<value_float = 127.0>()

    pt_i = Unsqueeze(pt, two)
    pt_j = Unsqueeze(pt, one)
    empty_i = Equal(pt_i, f0)
    empty_j = Equal(pt_j, f0)
    empty = Or(empty_i, empty_j)
    position_i = Unsqueeze(position, two)
    position_j = Unsqueeze(position, one)
    difference = Sub(position_i, position_j)
    squares = Mul(difference, difference)
    distance = ReduceSum<keepdims = 0>(squares, three)
    near = LessOrEqual(distance, squared_radius)
    real = Not(empty)
    edge = And(real, near)
    weight_any = Where(is_weighted, pt_j, f1)
    weight = Where(edge, weight_any, f0)
    weight_columns = ReduceSum<keepdims = 1>(weight, two)
    weight_sum = Slice(weight_columns, zero, one, two)
    weight_total = Max(weight_sum, smallest)
    share_matrix = Div(weight, weight_total)
    share = Unsqueeze(share_matrix, three)

    squared_xy = Mul(position, position)
    squared_columns = ReduceSum<keepdims = 1>(squared_xy, two)
    squared = Slice(squared_columns, zero, one, two)
    central = Equal(squared, f0)
    squared_safe = Where(central, f1, squared)
    length = Sqrt(squared_safe)
    unit = Div(position, length)
    cos_column = Slice(unit, zero, one, two)
    sin_column = Slice(unit, one, two, two)
    cos_i = Unsqueeze(cos_column, two)
    cos_j = Unsqueeze(cos_column, one)
    sin_i = Unsqueeze(sin_column, two)
    sin_j = Unsqueeze(sin_column, one)
    cos_cos = Mul(cos_i, cos_j)
    sin_sin = Mul(sin_i, sin_j)
    cos = Add(cos_cos, sin_sin)
    sin_cos = Mul(sin_i, cos_j)
    cos_sin = Mul(cos_i, sin_j)
    sin = Sub(sin_cos, cos_sin)
    h_i = Unsqueeze(features, two)
    h_j = Unsqueeze(features, one)
    change = Sub(h_j, h_i)
    pairs = Shape(change)
    own = Expand(h_i, pairs)
    other = Expand(h_j, pairs)
    row = Concat<axis = 3>(own, other, change, cos, sin)
LAYER_1
    bent = Mul(y1, slope)
    is_positive = Greater(y1, f0)
    hidden = Where(is_positive, y1, bent)
LAYER_2
    parts = Mul(y2, share)
    edge_column = Unsqueeze(edge, three)
    counted = Where(edge_column, parts, f0)
    Y = ReduceSum<keepdims = 0>(counted, two)
"""


def message_passing_function(opset: int = 20) -> onnx.FunctionProto:
    """Build the body of `MessagePassing` for models of the given opset, 13 or newer.

    Raises:
        OperatorError: the opset is older than the operators that the body needs.
    """
    if opset < OPSET_MIN:
        raise OperatorError(f"opset: found {opset}, expected at least {OPSET_MIN}")
    body = _BODY.replace("LAYER_1", _LAYER.format(i=1, x="row")).replace(
        "LAYER_2", _LAYER.format(i=2, x="hidden")
    )
    # The axes of ReduceMax became an input five opsets after those of ReduceSum.
    for i in (1, 2):
        reduced = f"ReduceMax<keepdims = 1>(magnitude{i}, three)"
        older = f"ReduceMax<axes = [3], keepdims = 1>(magnitude{i})"
        body = body.replace(f"REDUCE_MAX(magnitude{i})", reduced if opset >= 18 else older)
    return parser.parse_function(
        f'<opset_import: ["" : {opset}], domain: "{DOMAIN}">\n'
        f"{NAME} <squared_radius, weighted, slope, act_qmax1, act_qmax2>"
        "(pt, features, position, W1, scale1, bias1, W2, scale2, bias2) => (Y) {" + body + "}"
    )
