"""`TernaryMatMul` in standard operators, so that a file runs where the library is not installed."""

import onnx
from onnx import helper, parser

from bitsearch.ops.domain import DOMAIN
from bitsearch.ops.errors import OperatorError

NAME = "TernaryMatMul"
OPSET_MIN = 13  # axes of ReduceSum and Unsqueeze as inputs

# Why a Gemm of zeros: it alone turns an absent optional input into zeros in every runtime.
# Why the sum of X - X: it is NaN exactly on rows with a NaN or an infinity, which ReduceMax may not see.
# Why Mod by 4: opsets before 18 have no BitwiseAnd.
# Why the slice of one column: onnxruntime keeps all K columns when it reduces an empty batch.
_BODY = """
    q_max = Constant<value_float: float = @act_qmax>()
    k_scalar = Constant<value_int: int = @K>()
    zero = Constant<value_ints = [0]>()
    one = Constant<value_ints = [1]>()
    two = Constant<value_ints = [2]>()
    last = Constant<value_ints = [-1]>()
    k = Reshape(k_scalar, one)

    shifts = Constant<value = uint8[4] {0, 2, 4, 6}>()
    four = Constant<value = uint8 {4}>()
    bytes = Unsqueeze(W, two)
    shifted = BitShift<direction = "RIGHT">(bytes, shifts)
    fields = Mod(shifted, four)
    padded_codes = Flatten<axis = 1>(fields)
    codes = Slice(padded_codes, zero, k, one)
    codes_float = Cast<to = 1>(codes)
    code_of_zero = Constant<value_float = 1.0>()
    weights = Sub(codes_float, code_of_zero)
    weights_t = Transpose<perm = [1, 0]>(weights)

    magnitude = Abs(X)
    largest = REDUCE_MAX
    floor = Constant<value_float = 1e-8>()
    gamma = Max(largest, floor)
    inverse_step = Div(q_max, gamma)
    scaled = Mul(X, inverse_step)
    rounded = Round(scaled)
    minus_q_max = Neg(q_max)
    below = Sub(minus_q_max, code_of_zero)
    int8_min = Constant<value_float = -128.0>()
    int8_max = Constant<value_float = 127.0>()
    low = Max(below, int8_min)
    high = Min(q_max, int8_max)
    q = Clip(rounded, low, high)
    acc = MatMul(q, weights_t)

    zeros_or_nans = Sub(X, X)
    zero_or_nan = ReduceSum<keepdims = 1>(zeros_or_nans, last)
    finite_step = Div(gamma, q_max)
    step_column = Add(finite_step, zero_or_nan)
    step = Slice(step_column, zero, one, last)
    factor = Mul(step, scale)
    product = Mul(acc, factor)
    float_zero = Constant<value = float[1, 1] {0.0}>()
    w_dims = Shape(W)
    w_shape = Slice(w_dims, zero, one)
    row_shape = Concat<axis = 0>(one, w_shape)
    zero_row = Expand(float_zero, row_shape)
    bias_row = Gemm(float_zero, zero_row, bias)
    bias_or_zero = Reshape(bias_row, w_shape)
    Y = Add(product, bias_or_zero)
"""


def ternary_matmul_function(opset: int = 20) -> onnx.FunctionProto:
    """Build the body of `TernaryMatMul` for models of the given opset, 13 or newer.

    Raises:
        OperatorError: the opset is older than the operators that the body needs.
    """
    if opset < OPSET_MIN:
        raise OperatorError(f"opset: found {opset}, expected at least {OPSET_MIN}")
    # The axes of ReduceMax became an input five opsets after those of ReduceSum.
    along_rows = "ReduceMax<{}keepdims = 1>(magnitude{})".format(
        *("", ", last") if opset >= 18 else ("axes = [-1], ", "")
    )
    function = parser.parse_function(
        f'<opset_import: ["" : {opset}], domain: "{DOMAIN}">\n'
        f"{NAME} <K>(X, W, scale, bias) => (Y) {{{_BODY.replace('REDUCE_MAX', along_rows)}}}"
    )
    function.attribute_proto.append(helper.make_attribute("act_qmax", 127.0))
    return function
