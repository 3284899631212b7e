"""`MonotoneSpline` in standard operators, so that a file runs where the library is not installed.

One function serves every setting: attributes choose the branch of an `If`, which onnxruntime resolves when it opens
the file, so that only the operators of one setting remain.
"""

import onnx
from onnx import helper, parser

from bitsearch.ops.domain import DOMAIN
from bitsearch.ops.errors import OperatorError

NAME = "MonotoneSpline"
OPSET_MIN = 13  # axes of ReduceSum and Unsqueeze as inputs
NEWTON_STEPS = 8

# Why a sum of one-hot products: onnxruntime takes it twice as fast as it gathers single elements.
# Why sums keep their axis and are reshaped, and parameters are counted: onnxruntime reduces an empty batch to
# another shape, and cannot resolve -1 there.
# Why words are counted: opsets before 20 have no comparison of strings that onnx's reference evaluator gets right.
# Why slices of shapes, sums of what is outside and columns of differences: Shape, ReduceMin and Pad have other
# inputs in older opsets.
# Why the sum of theta - theta: it is NaN exactly where a parameter is NaN or infinite.
_BODY = """
    kind = Constant<value_string: string = @kind>()
    out_of_bounds = Constant<value_string: string = @out_of_bounds>()
    bins_scalar = Constant<value_int: int = @bins>()
    bound = Constant<value_float: float = @bound>()
    inverse = Constant<value_int: int = @inverse>()
    zero = Constant<value_ints = [0]>()
    one = Constant<value_ints = [1]>()
    {is_cubic}
    {is_event}
    is_inverse = Cast<to = 9>(inverse)

    last = Constant<value_ints = [-1]>()
    end = Constant<value_ints = [9223372036854775807]>()
    f0 = Constant<value_float = 0.0>()
    f1 = Constant<value_float = 1.0>()
    f2 = Constant<value_float = 2.0>()
    f3 = Constant<value_float = 3.0>()
    f4 = Constant<value_float = 4.0>()
    half = Constant<value_float = 0.5>()
    smallest = Constant<value_float = 1e-3>()
    tiny = Constant<value_float = 1.17549435e-38>()
    bins = Reshape(bins_scalar, one)
    bins_2 = Add(bins, bins)

    x_shape = Shape(X)
    theta_shape = Shape(theta)
    theta_length = Slice(theta_shape, last, end, zero)
    x_length = Slice(x_shape, last, end, zero)
    parameter_count = Div(theta_length, x_length)
    grouped_shape = Concat<axis = 0>(x_shape, parameter_count)
    parameters = Reshape(theta, grouped_shape)
    zeros_or_nans = Sub(parameters, parameters)
    poison_column = ReduceSum<keepdims = 1>(zeros_or_nans, last)
    poison = Reshape(poison_column, x_shape)

    minus_bound = Neg(bound)
    above = GreaterOrEqual(X, minus_bound)
    below = LessOrEqual(X, bound)
    inside_scalar = And(above, below)
    outside_scalar = Not(inside_scalar)
    outside_float = Cast<to = 1>(outside_scalar)
    outside_row = ReduceSum<keepdims = 1>(outside_float, last)
    outside_either = Where(is_event, outside_row, outside_float)
    outside = Cast<to = 9>(outside_either)
    inside = Not(outside)
    x_inside = Where(inside_scalar, X, f0)
    shifted = Add(x_inside, bound)
    domain = Mul(f2, bound)
    position = Div(shifted, domain)

    width_logits = Slice(parameters, zero, bins, last)
    height_logits = Slice(parameters, bins, bins_2, last)
    rest = Slice(parameters, bins_2, end, last)
    bins_float = Cast<to = 1>(bins_scalar)
    reserved = Mul(smallest, bins_float)
    free = Sub(f1, reserved)
    width_shares = Softmax<axis = -1>(width_logits)
    width_free = Mul(width_shares, free)
    widths = Add(width_free, smallest)
    height_shares = Softmax<axis = -1>(height_logits)
    height_free = Mul(height_shares, free)
    heights = Add(height_free, smallest)
    axis = Constant<value_int = -1>()
    left = CumSum<exclusive = 1>(widths, axis)
    lower = CumSum<exclusive = 1>(heights, axis)
    edges = If(is_inverse) <
      then_branch = searched_heights () => (float[] edges_h) {{ edges_h = Identity(lower) }},
      else_branch = searched_widths () => (float[] edges_w) {{ edges_w = Identity(left) }}
    >
    position_column = Unsqueeze(position, last)
    reached = GreaterOrEqual(position_column, edges)
    reached_float = Cast<to = 1>(reached)
    count = ReduceSum<keepdims = 1>(reached_float, last)
    int_zero = Constant<value_int = 0>()
    int_one = Constant<value_int = 1>()
    order = Range(int_zero, bins_scalar, int_one)
    order_float = Cast<to = 1>(order)
    index = Sub(count, f1)
    chosen = Equal(order_float, index)
    mask = Cast<to = 1>(chosen)
    {x_k}
    {y_k}
    {w}
    {h}
    s = Div(h, w)
    unit, slope_log = If(is_cubic) <
      then_branch = cubic () => (float[] unit_c, float[] log_c) {{ {cubic} }},
      else_branch = rational_quadratic () => (float[] unit_r, float[] log_r) {{ {rational_quadratic} }}
    >
    inverse_float = Cast<to = 1>(inverse)
    twice = Mul(f2, inverse_float)
    sign = Sub(f1, twice)
    signed_log = Mul(slope_log, sign)
    poisoned_log = Add(signed_log, poison)
    kept_log = Where(inside, poisoned_log, f0)
    log_sum = ReduceSum<keepdims = 1>(kept_log, last)
    batch_shape = Slice(x_shape, zero, last)
    log_det = Reshape(log_sum, batch_shape)
    scaled = Mul(unit, domain)
    moved = Sub(scaled, bound)
    poisoned = Add(moved, poison)
    Y = Where(inside, poisoned, X)
"""

_RATIONAL_QUADRATIC = """
    limit = Constant<value_float = 1e6>()
    end_logit = Sub(position_column, position_column)
    logits = Concat<axis = -1>(end_logit, rest, end_logit)
    left_logits = Slice(logits, zero, last, last)
    right_logits = Slice(logits, one, end, last)
    {logit_0}
    {logit_1}
    bounded_0 = Min(logit_0, limit)
    bounded_1 = Min(logit_1, limit)
    softplus_0 = Softplus(bounded_0)
    softplus_1 = Softplus(bounded_1)
    inner_0 = Add(softplus_0, smallest)
    inner_1 = Add(softplus_1, smallest)
    first_column = Equal(index, f0)
    is_first = Reshape(first_column, x_shape)
    last_index = Sub(bins_float, f1)
    last_column = Equal(index, last_index)
    is_last = Reshape(last_column, x_shape)
    d_0 = Where(is_first, f1, inner_0)
    d_1 = Where(is_last, f1, inner_1)
    slope_sum = Add(d_0, d_1)
    s_2 = Mul(f2, s)
    curvature = Sub(slope_sum, s_2)
    xi_any = If(is_inverse) <
      then_branch = inverse_r () => (float[] xi_inverse) {{
        t = Sub(position, y_k)
        bent = Mul(t, curvature)
        rise = Sub(s, d_0)
        rise_h = Mul(h, rise)
        a = Add(bent, rise_h)
        h_d_0 = Mul(h, d_0)
        b = Sub(h_d_0, bent)
        st = Mul(s, t)
        c = Neg(st)
        bb = Mul(b, b)
        ac = Mul(a, c)
        ac_4 = Mul(f4, ac)
        discriminant = Sub(bb, ac_4)
        not_negative = Max(discriminant, f0)
        root = Sqrt(not_negative)
        rising = GreaterOrEqual(b, f0)
        c_2 = Mul(f2, c)
        root_minus_b = Sub(root, b)
        top = Where(rising, c_2, root_minus_b)
        b_plus_root = Add(b, root)
        minus_sum = Neg(b_plus_root)
        a_2 = Mul(f2, a)
        bottom = Where(rising, minus_sum, a_2)
        xi_inverse = Div(top, bottom)
      }},
      else_branch = forward_r () => (float[] xi_forward) {{
        offset = Sub(position, x_k)
        xi_forward = Div(offset, w)
      }}
    >
    xi = Clip(xi_any, f0, f1)
    eta = Sub(f1, xi)
    mixed = Mul(xi, eta)
    bent_mixed = Mul(curvature, mixed)
    denominator = Add(s, bent_mixed)
    xi_2 = Mul(xi, xi)
    eta_2 = Mul(eta, eta)
    term_1 = Mul(d_1, xi_2)
    term_s = Mul(s_2, mixed)
    term_0 = Mul(d_0, eta_2)
    terms = Add(term_1, term_s)
    numerator = Add(terms, term_0)
    ratio = Div(s, denominator)
    log_ratio = Log(ratio)
    log_ratio_2 = Mul(f2, log_ratio)
    log_numerator = Log(numerator)
    log_r = Add(log_ratio_2, log_numerator)
    unit_r = If(is_inverse) <
      then_branch = x_r () => (float[] x_unit_r) {{
        step_x = Mul(w, xi)
        x_unit_r = Add(x_k, step_x)
      }},
      else_branch = y_r () => (float[] y_unit_r) {{
        s_xi_2 = Mul(s, xi_2)
        d_mixed = Mul(d_0, mixed)
        parts = Add(s_xi_2, d_mixed)
        h_parts = Mul(h, parts)
        step_y = Div(h_parts, denominator)
        y_unit_r = Add(y_k, step_y)
      }}
    >
"""

_CUBIC = """
    all_s = Div(heights, widths)
    s_0 = Slice(all_s, zero, last, last)
    s_1 = Slice(all_s, one, end, last)
    w_0 = Slice(widths, zero, last, last)
    w_1 = Slice(widths, one, end, last)
    least = Min(s_0, s_1)
    w_s_0 = Mul(w_1, s_0)
    w_s_1 = Mul(w_0, s_1)
    w_s = Add(w_s_0, w_s_1)
    half_w_s = Mul(w_s, half)
    w_sum = Add(w_0, w_1)
    mean = Div(half_w_s, w_sum)
    limited = Min(least, mean)
    inner = Mul(f2, limited)
    first_s = Slice(all_s, zero, one, last)
    last_s = Slice(all_s, last, end, last)
    end_s = Concat<axis = -1>(first_s, last_s)
    end_s_3 = Mul(f3, end_s)
    smallest_2 = Mul(f2, smallest)
    range = Sub(end_s_3, smallest_2)
    portion = Sigmoid(rest)
    above_smallest = Mul(portion, range)
    end_slopes = Add(above_smallest, smallest)
    first = Slice(end_slopes, zero, one, last)
    final = Slice(end_slopes, one, end, last)
    left_slopes = Concat<axis = -1>(first, inner)
    right_slopes = Concat<axis = -1>(inner, final)
    {d_0}
    {d_1}
    c = Div(d_0, s)
    e = Div(d_1, s)
    c_e = Add(c, e)
    a = Sub(c_e, f2)
    c_2 = Mul(f2, c)
    three_c_2 = Sub(f3, c_2)
    b = Sub(three_c_2, e)
    a_3 = Mul(f3, a)
    b_2 = Mul(f2, b)
    q_any = If(is_inverse) <
      then_branch = inverse_c () => (float[] q_inverse) {{
        t = Sub(position, y_k)
        target = Div(t, h)
        low_0 = Mul(target, f0)
        high_0 = Add(low_0, f1)
        q_0 = Clip(target, f0, f1)
        {newton}
        q_inverse = Identity(q_{steps})
      }},
      else_branch = forward_c () => (float[] q_forward) {{
        offset = Sub(position, x_k)
        q_forward = Div(offset, w)
      }}
    >
    q = Clip(q_any, f0, f1)
    a_3_q = Mul(a_3, q)
    a_b = Add(a_3_q, b_2)
    a_b_q = Mul(a_b, q)
    slope_any = Add(a_b_q, c)
    slope = Max(slope_any, tiny)
    log_s = Log(s)
    log_slope = Log(slope)
    log_c = Add(log_s, log_slope)
    unit_c = If(is_inverse) <
      then_branch = x_c () => (float[] x_unit_c) {{
        step_x = Mul(w, q)
        x_unit_c = Add(x_k, step_x)
      }},
      else_branch = y_c () => (float[] y_unit_c) {{
        aq = Mul(a, q)
        aq_b = Add(aq, b)
        aq_b_q = Mul(aq_b, q)
        aq_b_q_c = Add(aq_b_q, c)
        cubic_q = Mul(aq_b_q_c, q)
        step_y = Mul(h, cubic_q)
        y_unit_c = Add(y_k, step_y)
      }}
    >
"""

_NEWTON = """
        aq_{i} = Mul(a, q_{i})
        aq_b_{i} = Add(aq_{i}, b)
        aq_b_q_{i} = Mul(aq_b_{i}, q_{i})
        aq_b_q_c_{i} = Add(aq_b_q_{i}, c)
        value_{i} = Mul(aq_b_q_c_{i}, q_{i})
        residual_{i} = Sub(value_{i}, target)
        a_3_q_{i} = Mul(a_3, q_{i})
        a_b_{i} = Add(a_3_q_{i}, b_2)
        a_b_q_{i} = Mul(a_b_{i}, q_{i})
        slope_any_{i} = Add(a_b_q_{i}, c)
        slope_{i} = Max(slope_any_{i}, tiny)
        is_above_{i} = Greater(residual_{i}, f0)
        low_{n} = Where(is_above_{i}, low_{i}, q_{i})
        high_{n} = Where(is_above_{i}, q_{i}, high_{i})
        correction_{i} = Div(residual_{i}, slope_{i})
        next_{i} = Sub(q_{i}, correction_{i})
        not_low_{i} = GreaterOrEqual(next_{i}, low_{n})
        not_high_{i} = LessOrEqual(next_{i}, high_{n})
        within_{i} = And(not_low_{i}, not_high_{i})
        both_{i} = Add(low_{n}, high_{n})
        middle_{i} = Mul(half, both_{i})
        q_{n} = Where(within_{i}, next_{i}, middle_{i})
"""


def monotone_spline_function(opset: int = 20) -> onnx.FunctionProto:
    """Build the body of `MonotoneSpline` for models of the given opset.

    Raises:
        OperatorError: the opset is older than the operators that the body needs.
    """
    if opset < OPSET_MIN:
        raise OperatorError(f"opset: found {opset}, expected at least {OPSET_MIN}")
    newton = "".join(_NEWTON.format(i=step, n=step + 1) for step in range(NEWTON_STEPS))
    body = _BODY.format(
        is_cubic=is_word("is_cubic", "kind", "cubic"),
        is_event=is_word("is_event", "out_of_bounds", "event"),
        x_k=_at("x_k", "left"),
        y_k=_at("y_k", "lower"),
        w=_at("w", "widths"),
        h=_at("h", "heights"),
        rational_quadratic=_RATIONAL_QUADRATIC.format(
            logit_0=_at("logit_0", "left_logits"), logit_1=_at("logit_1", "right_logits")
        ),
        cubic=_CUBIC.format(
            d_0=_at("d_0", "left_slopes"), d_1=_at("d_1", "right_slopes"), newton=newton, steps=NEWTON_STEPS
        ),
    )
    function = parser.parse_function(
        f'<opset_import: ["" : {opset}], domain: "{DOMAIN}">\n'
        f"{NAME} <kind, bins, bound>(X, theta) => (Y, log_det) {{{body}}}"
    )
    defaults = {"inverse": 0, "out_of_bounds": "scalar"}
    function.attribute_proto.extend(helper.make_attribute(name, value) for name, value in defaults.items())
    return function


def is_word(name: str, text: str, word: str) -> str:
    """Write whether a text is a word: how often a dictionary of that word finds it."""
    settings = "min_gram_length = 1, max_gram_length = 1, max_skip_count = 0, ngram_counts = [0], ngram_indexes = [0]"
    return (
        f"{name}_row = Reshape({text}, one)\n"
        f'    {name}_count = TfIdfVectorizer<mode = "TF", {settings}, pool_strings = ["{word}"]>({name}_row)\n'
        f"    {name} = Cast<to = 9>({name}_count)"
    )


def _at(name: str, values: str) -> str:
    """Write the lookup of each value's bin."""
    return (
        f"{name}_masked = Mul({values}, mask)\n"
        f"    {name}_column = ReduceSum<keepdims = 1>({name}_masked, last)\n"
        f"    {name} = Reshape({name}_column, x_shape)"
    )
